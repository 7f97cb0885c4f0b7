"""How a command that failed ends: what is shown on stderr, with which exit code. MOBILEKD_DEBUG shows tracebacks."""

import errno
import os
import signal
import sys
import traceback
from datetime import UTC, datetime
from pathlib import Path

from typer.exceptions import TyperException

from mobilekd import __version__
from mobilekd.errors import CODE_BUG, CODE_USAGE, EXIT_BUG, ConfigError, MobilekdError, StageError, one_line

_SHOWN_CHARACTERS = 400
_FULL = {errno.ENOSPC, errno.EDQUOT}
_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR}
"""What a path that the user gave is refused with, whichever command reads or writes it."""


def end_as_with_ctrl_c() -> None:
    """Let a command that CI cancels, or whose terminal closes, end as with Ctrl-C: devices are let go, folders go.

    Not under torchrun: a process that waits for a dead one in a collective would not hear of it, and is to end at once.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:  # nohup has SIGHUP ignored
            signal.signal(number, signal.default_int_handler)


def show_usage(usage: TyperException) -> int:
    """Show what was wrong with the words of a command, and return the exit code."""
    message = usage.format_message()
    if message.startswith("Usage:"):  # a group without a command: the message is its help
        print(message, file=sys.stderr)
        return usage.exit_code
    command = getattr(getattr(usage, "ctx", None), "command_path", "mobilekd")
    print(f"error: {one_line(message, _SHOWN_CHARACTERS)} [{CODE_USAGE}]\nhint: {command} --help", file=sys.stderr)
    return usage.exit_code


def show_failure(failure: MobilekdError) -> int:
    """Show a failure that we expect, and return its exit code."""
    from mobilekd.console import Console

    if os.environ.get("MOBILEKD_DEBUG"):
        traceback.print_exception(failure)
    Console().fail(failure)
    return failure.exit_code


def show_trouble(trouble: OSError) -> int:
    """Show what the system refused, such as a file that may not be written; another OSError is a bug."""
    where = f"{one_line(os.fsdecode(trouble.filename), _SHOWN_CHARACTERS)}: " if trouble.filename else ""
    if trouble.errno in _FULL:
        hint = "free some space (mobilekd cache prune), or choose another place with --cache DIR"
        return show_failure(StageError(f"{where}{trouble.strerror}", hint=hint, code="MKD-430"))
    if trouble.errno in _REFUSED:
        return show_failure(ConfigError(f"{where}{trouble.strerror}", code="MKD-202"))
    return report_bug(trouble)


def report_bug(bug: Exception) -> int:
    """Write the traceback of a bug to a file, show one line, and return the exit code."""
    import tempfile

    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    log = Path(tempfile.mkdtemp(prefix="mobilekd-bug-")) / f"{stamp}.log"
    head = f"mobilekd {__version__}\npython {sys.version}\narguments {sys.argv[1:]!r}\n\n"
    log.write_text(head + "".join(traceback.format_exception(bug)), encoding="utf-8", errors="backslashreplace")
    if os.environ.get("MOBILEKD_DEBUG"):
        traceback.print_exception(bug)
    said = one_line(f"{type(bug).__name__}: {bug}", _SHOWN_CHARACTERS)
    print(f"error: a bug of mobilekd: {said} [{CODE_BUG}]\nhint: please report it with {log}", file=sys.stderr)
    return EXIT_BUG
