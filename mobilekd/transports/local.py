"""This host as a device: its own CPU, wall time."""

import contextlib
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from mobilekd.errors import DeviceError
from mobilekd.transport import PATIENT, Completed, DeviceFacts, LatencyKind, Patience
from mobilekd.transports._folder import Folder
from mobilekd.transports._holding import Owner, Wait, host_lock


class Local:
    """The machine that we run on, held by a lock: two benchmarks at once would time each other."""

    latency_kind: ClassVar[LatencyKind] = "wall"

    def __init__(self, root: Path, patience: Patience = PATIENT) -> None:
        """Take note of the state folder; everything is kept in root/local."""
        self._root = root / "local"
        self._patience = patience
        self._stack = contextlib.ExitStack()
        self._folder: Folder | None = None

    def __enter__(self) -> Self:
        """Take the machine.

        Raises:
            DeviceError: Another process did not let go of it in time; its id is named.
        """
        with contextlib.ExitStack() as stack:
            stack.enter_context(host_lock(self._root / "lock", "this machine", Owner.this(), Wait(self._patience)))
            self._folder = Folder(self._root)
            stack.callback(self._folder.close)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Let the machine go."""
        self._folder = None
        self._stack.close()

    def push(self, files: Mapping[str, Path]) -> int:
        """See `Transport.push`."""
        return self._held.push(files)

    def run(self, argv: Sequence[str], *, timeout_s: float, env: Mapping[str, str] | None = None) -> Completed:
        """See `Transport.run`; of this process's environment only PATH reaches the command."""
        return self._held.run(argv, timeout_s=timeout_s, env=_environment() | dict(env or {}))

    def pull(self, name: str, to: Path) -> None:
        """See `Transport.pull`."""
        self._held.pull(name, to)

    def facts(self) -> DeviceFacts:
        """Return what /proc and the kernel say of this machine."""
        fields = _cpu_fields(Path("/proc/cpuinfo"))
        board = Path("/proc/device-tree/model")
        told = board.read_text(encoding="utf-8", errors="replace").strip("\0\n") if board.is_file() else ""
        return DeviceFacts(
            name=told or fields.get("model name", "") or platform.machine(),
            machine=platform.machine(),
            features=tuple((fields.get("Features") or fields.get("flags") or "").split()),
            cores=os.cpu_count() or 1,
            memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            system=f"{platform.system()} {platform.release()}",
        )

    @property
    def _held(self) -> Folder:
        if self._folder is None:
            raise DeviceError("the local device is used outside of its `with` block")
        return self._folder


def _environment() -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", os.defpath), "HOME": ".", "LC_ALL": "C"}


def _cpu_fields(cpuinfo: Path) -> dict[str, str]:
    """Return the fields of the first CPU."""
    if not cpuinfo.is_file():
        return {}
    first = cpuinfo.read_text(encoding="utf-8", errors="replace").split("\n\n", 1)[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}
