"""Run another program: its output kept in a log, its failure told with the last lines of it."""

import shlex
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from mobilekd.errors import StageError

_TAIL_LINES = 15


def run_logged(
    argv: Sequence[str], log: Path, *, env: Mapping[str, str] | None = None, timeout_s: float = 1800.0
) -> None:
    """Run a program to its end, with stdout and stderr appended to a log.

    Raises:
        StageError: It exited non-zero, was killed by a signal (named), or ran past the time;
            the message carries the last lines of the log.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as stream:
        stream.write(f"$ {shlex.join(argv)}\n".encode())
        stream.flush()
        try:
            done = subprocess.run(
                argv,
                stdout=stream,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=env,
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired as cause:
            raise StageError(
                f"{argv[0]} ran past {timeout_s:.0f} s\n{tail(log)}", hint=f"the whole log: {log}", code="MKD-421"
            ) from cause
    if done.returncode:
        raise StageError(
            f"{argv[0]} {_ending(done.returncode)}\n{tail(log)}", hint=f"the whole log: {log}", code="MKD-421"
        )


def tail(log: Path, lines: int = _TAIL_LINES) -> str:
    """Return the last lines of a log, indented for an error message."""
    text = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join(f"    {line}" for line in text[-lines:])


def _ending(returncode: int) -> str:
    if returncode < 0:
        return f"was ended by {signal.Signals(-returncode).name}"
    return f"ended with exit code {returncode}"
