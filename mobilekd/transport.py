"""The contract of a transport: how files and commands reach what runs the models."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Literal, Protocol, Self

LatencyKind = Literal["wall", "guest_instructions"]
"""What the times of a transport are: wall time of real silicon, or nothing but counted instructions of an emulator."""


@dataclass(frozen=True, slots=True)
class Completed:
    """A command that came to its end on the device.

    Attributes:
        returncode: Exit code of the command itself; 128 + N when signal N ended it.
        stdout, stderr: What it printed; stderr is empty where a transport can't tell them apart.
    """

    returncode: int
    stdout: str
    stderr: str


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    """What a device says of itself.

    Attributes:
        name: For people, as "Raspberry Pi 5 Model B" or "emulated cortex-a76 (qemu 7.2.22)".
        machine: `uname -m`, as "aarch64".
        features: CPU features as /proc/cpuinfo names them, as "asimddp" and "i8mm".
        cores: CPUs that are online.
        memory_bytes: Main memory; None where it is not told.
        system: Kernel, or Android release and build.
    """

    name: str
    machine: str
    features: tuple[str, ...]
    cores: int
    memory_bytes: int | None
    system: str


@dataclass(frozen=True, slots=True)
class Patience:
    """How a device that somebody else holds is waited for.

    Attributes:
        limit_s: Of the whole wait; then the device is refused.
        say: Takes one line when the wait begins.
    """

    limit_s: float = 600.0
    say: Callable[[str], None] = lambda _: None


PATIENT = Patience()


class Transport(Protocol):
    """One device, held for as long as the context is open: nobody else's benchmark gets it in between.

    Every name is relative to a folder of ours on the device, which is also the working folder of `run`. Leaving the
    context removes what this use made there and keeps what `push` may find again (by digest).
    """

    latency_kind: ClassVar[LatencyKind]

    def __enter__(self) -> Self:
        """Take the device.

        Raises:
            MissingToolError: A program of this host is not there.
            DeviceError: The device can't be reached, or another process that holds it did not let go in time.
        """

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Let the device go."""

    def push(self, files: Mapping[str, Path]) -> int:
        """Copy files to the device under the names given; those whose content is there already are not sent again.

        A file that is executable here is executable there.

        Returns:
            Bytes really sent.

        Raises:
            DeviceError: No space is left (bytes needed and free are named), or the device went away.
        """

    def run(self, argv: Sequence[str], *, timeout_s: float, env: Mapping[str, str] | None = None) -> Completed:
        """Run a command in our folder; argv[0] with a slash is a pushed file, as "./mkdrun".

        Raises:
            DeviceError: It ran past `timeout_s` (it is ended on the device too), or the device went away.
        """

    def pull(self, name: str, to: Path) -> None:
        """Copy one file back; `to` appears only when it is complete.

        Raises:
            DeviceError: There is no such file, or the device went away.
        """

    def facts(self) -> DeviceFacts:
        """Return what the device says of itself."""
