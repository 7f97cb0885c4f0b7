"""An arm64 CPU that qemu's user mode emulates: real kernels of the runtimes, counted instructions, no time.

Wall time under emulation says nothing of a CPU (a Cortex-A72 takes longer than a Cortex-A53), so none is a result.
"""

import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Literal, Self

from mobilekd.device import building, cpus
from mobilekd.errors import DeviceError, MissingToolError
from mobilekd.transport import Completed, DeviceFacts, LatencyKind
from mobilekd.transports._folder import Folder

_QEMU = "qemu-aarch64"
_PROBE_TIMEOUT_S = 20.0
_NOT_FOUND = 127
_CLOCK = "clock"


@dataclass(frozen=True, slots=True)
class Counts:
    """Instructions between two marks, by class; a class is of its own and in no other.

    Attributes:
        total: All of them.
        loads, stores: That read or write memory; atomic read-modify-writes are stores.
        simd: SIMD and floating point, without the two that follow.
        dot_product: SDOT, UDOT and their mixed-sign kin.
        i8mm: SMMLA, UMMLA, USMMLA: int8 matrix products.
        branches: Taken or not.
    """

    total: int
    loads: int
    stores: int
    simd: int
    dot_product: int
    i8mm: int
    branches: int


class Qemu:
    """One emulated CPU. Each use has a folder of its own, so nobody shares it and nothing is locked."""

    latency_kind: ClassVar[LatencyKind] = "guest_instructions"

    def __init__(self, root: Path, cpu: str = "cortex-a76") -> None:
        """Take note of the state folder (root/qemu is ours) and of a CPU model's name.

        Raises:
            ConfigError: There is no such CPU model.
        """
        self._state = root
        self._cpu = cpus.cpu(cpu)
        self._folder: Folder | None = None
        self._argv: tuple[str, ...] = ()

    def __enter__(self) -> Self:
        """Make the working folder.

        Raises:
            MissingToolError: qemu-aarch64 or the C library for arm64 is not installed.
        """
        program = shutil.which(_QEMU)
        if program is None:
            raise MissingToolError(f"{_QEMU} is not on PATH", hint="apt-get install qemu-user", code="MKD-301")
        prefix = cpus.prefix(self._cpu, self._state)
        self._argv = (program, "-cpu", self._cpu.qemu, "-L", str(prefix.resolve()))
        self._folder = Folder(self._state / "qemu")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Remove the working folder."""
        if self._folder is not None:
            self._folder.close()
        self._folder = None

    def push(self, files: Mapping[str, Path]) -> int:
        """See `Transport.push`."""
        return self._held.push(files)

    def run(self, argv: Sequence[str], *, timeout_s: float, env: Mapping[str, str] | None = None) -> Completed:
        """See `Transport.run`; only pushed programs are there, all else is 127 as from a shell."""
        return self._run((), argv, timeout_s, env)

    def run_counted(
        self,
        argv: Sequence[str],
        *,
        timeout_s: float,
        env: Mapping[str, str] | None = None,
        clock: Literal["real", "instructions"] = "real",
    ) -> tuple[Completed, tuple[Counts, ...]]:
        """Run a command that marks regions, as mkdrun does its timed runs; return it and the counts of each region.

        Exact for a program of one thread. With `clock="instructions"` every clock that mkdrun and its runtimes read
        shows the instructions so far, one a microsecond.

        Raises:
            MissingToolError: This qemu takes no plug-ins, or no C compiler builds ours.
            DeviceError: As `run`.
        """
        need_plugins()
        plugin = building.counting_plugin(self._state, _Silent()).resolve()
        # Beside the working folder, and outside of argv and environment: their sizes move the guest's stack.
        file = self._held.work.with_suffix(".counts")
        try:
            option = f"{_escaped(plugin)},out={_escaped(file)}"
            variables = dict(env or {}) | {"MKD_MARK": "1"}
            if clock == "instructions":
                option += f",clock={_escaped(self._held.work / _CLOCK)}"
                variables["MKD_CLOCK"] = _CLOCK
            done = self._run(("-plugin", option), argv, timeout_s, variables)
            lines = file.read_text(encoding="ascii").splitlines() if file.is_file() else []
        finally:
            file.unlink(missing_ok=True)
        return done, tuple(_counts(line) for line in lines)

    def pull(self, name: str, to: Path) -> None:
        """See `Transport.pull`."""
        self._held.pull(name, to)

    def facts(self) -> DeviceFacts:
        """Return what the CPU model is."""
        version = qemu_version()
        return DeviceFacts(
            name=f"emulated {self._cpu.qemu} (qemu {version})",
            machine="aarch64",
            features=self._cpu.features,
            cores=1,
            memory_bytes=None,
            system=f"qemu-user {version}",
        )

    def _run(
        self, options: Sequence[str], argv: Sequence[str], timeout_s: float, env: Mapping[str, str] | None
    ) -> Completed:
        if "/" not in argv[0] or not self._held.path(argv[0]).is_file():
            return Completed(_NOT_FOUND, "", f"{argv[0]}: not found\n")
        # The guest gets what is given and nothing of this host: the same environment makes the same stack everywhere.
        variables = {"HOME": ".", "LC_ALL": "C"} | dict(env or {})
        command = [*self._argv, *options, *argv]
        return self._held.run(command, timeout_s=timeout_s, env=variables, name=argv[0])

    @property
    def _held(self) -> Folder:
        if self._folder is None:
            raise DeviceError("the emulated device is used outside of its `with` block")
        return self._folder


class _Silent:
    def say(self, line: str) -> None:
        """Show nothing: the plug-in takes less than a second to build."""


def qemu_version() -> str:
    """Return the version of qemu-aarch64, as "7.2.22".

    Raises:
        MissingToolError: It is not installed.
    """
    words = _qemu_says("--version").split()
    return words[words.index("version") + 1] if "version" in words[:-1] else "of unknown version"


def is_installed() -> bool:
    """Return whether a qemu-aarch64 is there, with plug-ins or without."""
    return shutil.which(_QEMU) is not None


def need_plugins() -> None:
    """Accept a qemu-aarch64 that takes plug-ins.

    Raises:
        MissingToolError: It does not: Debian's static build, and its qemu 10, are made without them.
    """
    if "-plugin" not in _qemu_says("-h"):
        raise MissingToolError(
            f"{_QEMU} {qemu_version()} takes no plug-ins (no option -plugin), so instructions can't be counted",
            hint="use the dynamically linked qemu-user of Debian 12 (7.2), or --set profile.device.emulator=vm",
            code="MKD-304",
        )


def _qemu_says(option: str) -> str:
    try:
        done = subprocess.run((_QEMU, option), capture_output=True, text=True, timeout=_PROBE_TIMEOUT_S, check=False)
    except FileNotFoundError as cause:
        raise MissingToolError(f"{_QEMU} is not on PATH", hint="apt-get install qemu-user", code="MKD-301") from cause
    return done.stdout + done.stderr


def _escaped(path: Path) -> str:
    return str(path).replace(",", ",,")


def _counts(line: str) -> Counts:
    found = json.loads(line)
    return Counts(**{field.name: int(found[field.name]) for field in fields(Counts)})
