"""Who holds a device: one process of this host by a file lock, one host by a folder on the device."""

import fcntl
import hashlib
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from mobilekd.device.machine import is_alive
from mobilekd.errors import DeviceError


@dataclass(frozen=True, slots=True)
class Owner:
    """A process that holds a device.

    Attributes:
        host: Name of its host.
        pid: Its id there.
        since_s: When it took the device, in seconds since 1970.
    """

    host: str
    pid: int
    since_s: int

    @classmethod
    def this(cls) -> Self:
        """Return this process."""
        return cls(platform.node().replace(" ", "-") or "unnamed", os.getpid(), int(time.time()))

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Return the owner that `str` wrote; None for any other text."""
        words = text.split()
        if len(words) != 3 or not (words[1].isdigit() and words[2].isdigit()):
            return None
        return cls(words[0], int(words[1]), int(words[2]))

    @property
    def is_gone(self) -> bool:
        """Return whether it no longer holds a device whose host lock is ours.

        It was a process of this host that has ended, or this very process in an earlier use, cut off before it could
        clean up. Of another host's process nothing is known.
        """
        return self.host == Owner.this().host and (self.pid == os.getpid() or not is_alive(self.pid))

    def __str__(self) -> str:
        return f"{self.host} {self.pid} {self.since_s}"

    def describe(self) -> str:
        """Return it for a message."""
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.since_s))
        return f"process {self.pid} on {self.host} since {since}"


@contextmanager
def host_lock(state: Path, device: str, owner: Owner) -> Iterator[None]:
    """Hold a device against the other processes of this host; the system lets go when the process ends.

    Raises:
        DeviceError: Another process, or another use in this one, holds it.
    """
    folder = state / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{hashlib.sha256(device.encode()).hexdigest()[:16]}.lock"
    with path.open("a+", encoding="utf-8") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as cause:
            raise held(device, path.read_text(encoding="utf-8"), "wait for it to end") from cause
        stream.truncate(0)
        stream.write(f"{owner}\n")
        stream.flush()
        yield


def held(device: str, holder: str, hint: str) -> DeviceError:
    """Return the error for a device that somebody else holds."""
    owner = Owner.parse(holder)
    who = owner.describe() if owner else "somebody who left no name"
    return DeviceError(
        f"{device} is held by {who}; two measurements at once would disturb each other", hint=hint, code="MKD-505"
    )
