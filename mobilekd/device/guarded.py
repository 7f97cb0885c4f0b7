"""A program in the background that ends when this process ends, also when this one is killed."""

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

_STOP_TIMEOUT_S = 20.0
# A shell between us and the program reads a pipe that we alone hold open. When we end, in whatever way, the read
# returns and the program is killed. PR_SET_PDEATHSIG would fire when the thread that started it ends, and is
# not on every system.
_GUARD = """
exec 3<&0 </dev/null
"$@" 3<&- &
program=$!
(read -r _ <&3; kill -KILL "$program") &
watch=$!
exec 3<&-
wait "$program"
code=$?
kill -KILL "$watch" 2>/dev/null
exit "$code"
"""


class Guarded:
    """A running program; leaving the context kills it and waits for its end."""

    def __init__(self, argv: Sequence[str], log: Path, *, env: Mapping[str, str] | None = None) -> None:
        """Start it, stdout and stderr into a log; a program that is not there ends at once with 127."""
        with log.open("ab") as stream:
            self._guard = subprocess.Popen(
                ["/bin/sh", "-c", _GUARD, "guard", *argv],
                stdin=subprocess.PIPE,
                stdout=stream,
                stderr=subprocess.STDOUT,
                env=env,
                start_new_session=True,  # Ctrl-C reaches us alone: we end the program, after what must come before
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def is_running(self) -> bool:
        """Return whether the program has not ended."""
        return self._guard.poll() is None

    @property
    def group(self) -> int:
        """Return the process group of the program and of all that it started."""
        return self._guard.pid

    def stop(self) -> None:
        """Kill the program if it still runs; safe to call again."""
        if self._guard.stdin is not None and not self._guard.stdin.closed:
            self._guard.stdin.close()
        self._guard.wait(timeout=_STOP_TIMEOUT_S)
