"""CPU models that qemu-aarch64 can be, each with the /proc/cpuinfo that matches it.

Runtimes that choose kernels by pytorch/cpuinfo parse /proc/cpuinfo and /sys; under qemu-user older than 10 those are
the host's own, of another architecture, and ONNX Runtime and XNNPACK crash. qemu looks every absolute path up under
its -L folder first, so that is where the matching files are written.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path

from mobilekd.errors import ConfigError, MissingToolError

CROSS_LIBRARIES = Path("/usr/aarch64-linux-gnu/lib")
"""Where Debian's and Ubuntu's cross packages put the C library for arm64."""

EMULATED_ABIS = ("arm64-v8a", "aarch64")

_ARMV8 = "fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid"
_ARMV82 = "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp ssbs"
_ARMV86 = (
    "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm jscvt fcma lrcpc dcpop sha3 sm3 sm4"
    " asimddp sha512 asimdfhm dit uscat ilrcpc flagm ssbs sb paca pacg dcpodp flagm2 frint i8mm bf16 rng bti"
)


@dataclass(frozen=True, slots=True)
class Cpu:
    """One CPU model of the emulator.

    Attributes:
        name: Ours, as "cortex-a76".
        qemu: Value of qemu's -cpu.
        implementer, variant, part, revision: Of the CPU's identification register, as /proc/cpuinfo gives them.
        features: CPU features, as /proc/cpuinfo names them.
    """

    name: str
    qemu: str
    implementer: int
    variant: int
    part: int
    revision: int
    features: tuple[str, ...]

    def cpuinfo(self, cores: int = 1) -> str:
        """Return /proc/cpuinfo of a machine with this CPU."""
        block = (
            "processor\t: {core}\n"
            "BogoMIPS\t: 125.00\n"
            f"Features\t: {' '.join(self.features)}\n"
            f"CPU implementer\t: {self.implementer:#04x}\n"
            "CPU architecture: 8\n"
            f"CPU variant\t: {self.variant:#x}\n"
            f"CPU part\t: {self.part:#05x}\n"
            f"CPU revision\t: {self.revision}\n\n"
        )
        return "".join(block.format(core=core) for core in range(cores))


CPUS = {
    cpu.name: cpu
    for cpu in (
        Cpu("cortex-a53", "cortex-a53", 0x41, 0x0, 0xD03, 4, tuple(_ARMV8.split())),
        Cpu("cortex-a72", "cortex-a72", 0x41, 0x0, 0xD08, 3, tuple(_ARMV8.split())),
        Cpu("cortex-a76", "cortex-a76", 0x41, 0x4, 0xD0B, 1, tuple(_ARMV82.split())),
        Cpu("neoverse-n1", "neoverse-n1", 0x41, 0x4, 0xD0C, 1, tuple(_ARMV82.split())),
        # qemu 7.2 computes wrong int8 products with SME on (LiteRT: every logit), so bare "max" is never used.
        Cpu("armv8.6", "max,sme=off,sve=off", 0x00, 0x0, 0x051, 0, tuple(_ARMV86.split())),
    )
}


def cpu(name: str) -> Cpu:
    """Return a CPU model by name.

    Raises:
        ConfigError: There is no such model.
    """
    if name not in CPUS:
        raise ConfigError(f"no CPU model {name!r} for the emulator", hint=f"known: {', '.join(CPUS)}", code="MKD-231")
    return CPUS[name]


def prefix(model: Cpu, root: Path) -> Path:
    """Return the folder for qemu's -L: the CPU's /proc and /sys files and the arm64 C library; written where missing.

    Args:
        model: The CPU.
        root: State folder; it is kept in root/cpus.

    Raises:
        MissingToolError: The C library for arm64 is not installed.
    """
    need_libraries()
    folder = root / "cpus" / model.name
    files = _files(model)
    if _holds(folder, files):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{model.name}-", dir=folder.parent) as scratch:
        work = Path(scratch) / "prefix"
        for name, text in files.items():
            (work / name).parent.mkdir(parents=True, exist_ok=True)
            (work / name).write_text(text, encoding="ascii")
        (work / "lib").symlink_to(CROSS_LIBRARIES)
        if folder.exists():
            folder.rename(Path(scratch) / "old")
        work.rename(folder)
    return folder


def is_written(model: Cpu, root: Path) -> bool:
    """Return whether `prefix` finds its folder as it should be."""
    return _holds(root / "cpus" / model.name, _files(model))


def need_libraries() -> None:
    """Accept a host that has the C and C++ library for arm64.

    Raises:
        MissingToolError: It does not.
    """
    if not (CROSS_LIBRARIES / "ld-linux-aarch64.so.1").exists() or not (CROSS_LIBRARIES / "libstdc++.so.6").exists():
        raise MissingToolError(
            f"no C and C++ library for arm64 is in {CROSS_LIBRARIES}",
            hint="apt-get install libc6-dev-arm64-cross libstdc++6-arm64-cross",
            code="MKD-304",
        )


def _holds(folder: Path, files: dict[str, str]) -> bool:
    paths = [folder / name for name in files]
    return all(path.is_file() for path in paths) and all(
        path.read_text(encoding="ascii") == text for path, text in zip(paths, files.values(), strict=True)
    )


def _files(model: Cpu) -> dict[str, str]:
    """Return what pytorch/cpuinfo reads, for one core: with more, threads would be spread over cores that are not."""
    system = "sys/devices/system/cpu"
    midr = model.implementer << 24 | model.variant << 20 | 0xF << 16 | model.part << 4 | model.revision
    return {
        "proc/cpuinfo": model.cpuinfo(),
        **{f"{system}/{name}": "0\n" for name in ("possible", "present", "online", "kernel_max")},
        f"{system}/cpu0/regs/identification/midr_el1": f"{midr:#018x}\n",
        f"{system}/cpu0/topology/core_siblings_list": "0\n",
        f"{system}/cpu0/topology/thread_siblings_list": "0\n",
        f"{system}/cpu0/topology/physical_package_id": "0\n",
    }
