"""Who holds a device: one process of this host by a file lock, one host by a folder on the device."""

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
from mobilekd.locks import try_lock
from mobilekd.transport import Patience

_PROCESS_STEP_S = 0.5
DEVICE_STEP_S = 10.0
"""Between two looks at a lock on the device: each runs a shell there, where somebody measures."""


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


class Wait:
    """One wait for a device; it begins when this is made."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._until_s = time.monotonic() + patience.limit_s
        self._is_told = False

    def pause(self, refusal: DeviceError, step_s: float) -> None:
        """Sleep a step before the next try, and tell the first time who is waited for.

        Raises:
            DeviceError: The time is up; the refusal, with how long was waited.
        """
        limit_s, left_s = self._patience.limit_s, self._until_s - time.monotonic()
        if left_s <= 0:
            hint = refusal.hint or "start again when it has ended"
            raise DeviceError(f"{refusal.message}; waited {limit_s:g} s for it", hint=hint, code=refusal.code)
        if not self._is_told:
            hint = f" ({refusal.hint})" if refusal.hint else ""
            self._patience.say(f"{refusal.message}: waiting for it, {limit_s:g} s at most{hint}")
            self._is_told = True
        time.sleep(min(step_s, left_s))


@contextmanager
def host_lock(path: Path, device: str, owner: Owner, wait: Wait) -> Iterator[None]:
    """Hold a device against the other processes of this host; the system lets go when the process ends.

    Args:
        path: The file that is locked; its holder's name is in it.
        device: For messages, as "adb device R58M".
        owner: This process.
        wait: For another process that holds it.

    Raises:
        DeviceError: Another process did not let go in time, or another use in this one holds it, which would not end.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as stream:
        while not try_lock(stream):
            holder = path.read_text(encoding="utf-8")
            refusal, named = held(device, holder), Owner.parse(holder)
            if named and (named.host, named.pid) == (owner.host, owner.pid):
                raise refusal
            wait.pause(refusal, _PROCESS_STEP_S)
        stream.truncate(0)
        stream.write(f"{owner}\n")
        stream.flush()
        yield


def lock_of(state: Path, device: str) -> Path:
    """Return the file whose lock is that of a device which a shell reaches."""
    return state / "locks" / f"{hashlib.sha256(device.encode()).hexdigest()[:16]}.lock"


def held(device: str, holder: str, hint: str = "") -> DeviceError:
    """Return the error for a device that somebody else holds."""
    owner = Owner.parse(holder)
    who = owner.describe() if owner else "somebody who left no name"
    return DeviceError(
        f"{device} is held by {who}; two measurements at once would disturb each other", hint=hint, code="MKD-505"
    )
