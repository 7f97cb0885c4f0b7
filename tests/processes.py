"""Other processes of this machine, as a test sees them: each may end between two looks."""

import contextlib
import time
from collections.abc import Callable
from pathlib import Path


def command_lines() -> dict[int, bytes]:
    """Return the command line of each process, with a NUL after each word; one that ends meanwhile has none."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # FileNotFoundError, or ProcessLookupError where the file is open already
            found[int(path.parent.name)] = path.read_bytes()
    return found


def runs(*words: str) -> bool:
    """Return whether some process has this command line."""
    return "".join(f"{word}\0" for word in words).encode() in command_lines().values()


def wait_until(claim: Callable[[], bool], timeout_s: float = 60.0) -> bool:
    """Return whether a claim came true in time: the limit is for a machine that does other work, too."""
    deadline = time.monotonic() + timeout_s
    while not claim() and time.monotonic() < deadline:
        time.sleep(0.05)
    return claim()
