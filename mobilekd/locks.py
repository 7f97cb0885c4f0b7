"""Locks of files, which the system lets go when their process ends."""

import fcntl
from typing import TextIO


def try_lock(file: int | TextIO) -> bool:
    """Lock an open file, or its descriptor, alone and without waiting; return whether nobody else has it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
