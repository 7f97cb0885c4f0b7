"""The steps of a setup: done or there already, each with its time; and one error for a disk that takes no more."""

import errno
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mobilekd.device.full_disk import full_disk, refuse_full_disk
from mobilekd.errors import ConfigError, MobilekdError
from mobilekd.stage import Progress

_UNWRITABLE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST}

State = Literal["made", "was there", "checked"]


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the setup; `detail` says where what it made is, or what was seen."""

    name: str
    state: State
    seconds: float
    detail: str


@dataclass(frozen=True, slots=True)
class Work:
    """One step to do: `is_there` is None for a check, which is never done for good."""

    name: str
    is_there: Callable[[], bool] | None
    do: Callable[[], str]


def done(work: Work, progress: Progress) -> Step:
    """Do a step where it is not done; return it with its time."""
    was_there = work.is_there is not None and work.is_there()
    began_s = time.monotonic()
    detail = work.do()
    seconds = time.monotonic() - began_s
    state: State = "checked" if work.is_there is None else "was there" if was_there else "made"
    progress.say(f"{work.name}: {state}, {seconds:.1f} s")
    return Step(work.name, state, round(seconds, 2), detail)


@contextmanager
def told(state: Path) -> Iterator[None]:
    """Turn a folder that can't be written, and the many faces of a full disk, into one error each."""
    try:
        yield
    except OSError as cause:
        if cause.errno in _UNWRITABLE:
            raise ConfigError(
                f"{cause.filename or state} can't be written: {cause.strerror}",
                hint="choose another folder: MOBILEKD_CACHE=DIR mobilekd devices setup",
                code="MKD-262",
            ) from cause
        if cause.errno not in {errno.ENOSPC, errno.EDQUOT}:
            raise
        raise full_disk(state, str(cause)) from cause
    except MobilekdError as cause:
        refuse_full_disk(state, cause)
        raise
