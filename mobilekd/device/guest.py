"""The parts of the arm64 virtual machine: a kernel, and an initramfs with adbd and an sshd. Made once, without root."""

import fcntl
import hashlib
import json
import lzma
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from mobilekd.device import initramfs
from mobilekd.device.debs import PrivateApt, unpack, write_record
from mobilekd.device.elf import closure
from mobilekd.errors import StageError

_VERSION = 1  # raise when the same packages make a different machine
_ARCHITECTURE = "arm64"
_KERNEL = "linux-image-cloud-arm64"
_SHELL = "busybox-static"
_DAEMONS = ("adbd", "dropbear-bin", "libstdc++6")
_PROGRAMS = {
    "bin/adbd": "usr/lib/android-sdk/platform-tools/adbd",
    "bin/dropbear": "usr/sbin/dropbear",
    "bin/dropbearkey": "usr/bin/dropbearkey",
}
# What a program pushed by the user may ask for; the C library is there anyway because of adbd.
_LIBRARIES = ("libdl.so.2", "libpthread.so.0", "librt.so.1", "libm.so.6", "libstdc++.so.6", "libgcc_s.so.1")
_LOADER = "ld-linux-aarch64.so.1"
_MODULES = ("virtio_pci", "virtio_net", "virtio_rng")
_DEPENDS = re.compile(rb"\0depends=([^\0]*)\0")
_TEXT_FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\n",
    "etc/group": "root:x:0:\n",
    "etc/shells": "/bin/sh\n",
}


@dataclass(frozen=True, slots=True)
class Guest:
    """A finished machine, ready to boot.

    Attributes:
        kernel, initramfs: What qemu is given.
        packages: Names, versions and sha256 of the Debian packages inside, as JSON.
    """

    kernel: Path
    initramfs: Path
    packages: Path


def init_script() -> bytes:
    """Return the program that the kernel starts first."""
    return (resources.files("mobilekd") / "device" / "native" / "guest-init.sh").read_bytes()


def find(state: Path) -> Guest | None:
    """Return the machine if it is made; starts nothing.

    Args:
        state: The folder where emulators are kept.
    """
    folder = state / f"guest-{_recipe()}"
    if not (folder / "packages.json").is_file():
        return None
    return Guest(folder / "kernel", folder / "initramfs", folder / "packages.json")


def prepare(state: Path, say: Callable[[str], None]) -> Guest:
    """Return the machine, made first where it is not there: some 30 MB of Debian packages, once.

    Two processes that ask at once make it once: the second waits for the first.

    Args:
        state: The folder where emulators are kept; made when missing.
        say: Takes a line of progress.

    Raises:
        MissingToolError: This system has no apt, or no mirror answers.
        StageError: A package does not hold what it held when this was written.
    """
    made = find(state)
    if made is not None:
        return made
    state.mkdir(parents=True, exist_ok=True)
    with _locked(state / ".guest.lock"):
        made = find(state)
        return made if made is not None else _make(state, say)


def _make(state: Path, say: Callable[[str], None]) -> Guest:
    say("making the arm64 machine: about 30 MB of Debian packages, once")
    with tempfile.TemporaryDirectory(dir=state, prefix=".guest-") as name:
        work = Path(name)
        apt = PrivateApt(work / "apt", _ARCHITECTURE)
        debs = list(apt.fetch(_DAEMONS, with_dependencies=True, backports=True))
        debs += apt.fetch((_KERNEL, _SHELL), with_dependencies=False)
        meta = next(deb for deb in debs if deb.name == _KERNEL)
        debs += apt.fetch(apt.depends(meta), with_dependencies=False)
        tree = work / "tree"
        unpack((apt.archives / deb.file for deb in debs), tree)
        made = work / "made"
        made.mkdir()
        shutil.copyfile(_only(tree, "boot/vmlinuz-*"), made / "kernel")
        (made / "initramfs").write_bytes(initramfs.archive(_entries(tree)))
        write_record(debs, made / "packages.json")
        made.replace(state / f"guest-{_recipe()}")
    found = find(state)
    if found is None:
        raise StageError(f"{state}: the machine was made and is gone", hint="does another process empty this folder?")
    say(f"the arm64 machine is ready: {found.kernel.parent}")
    return found


def _entries(tree: Path) -> Iterator[initramfs.Entry]:
    yield initramfs.file("init", init_script(), 0o755)
    yield initramfs.file("bin/busybox", (tree / "bin/busybox").read_bytes(), 0o755)
    yield initramfs.link("bin/sh", "busybox")
    yield initramfs.character_device("dev/console", 5, 1)
    for name in ("proc", "sys", "data/local/tmp", "system/bin"):
        yield initramfs.directory(name)
    yield initramfs.directory("root", 0o700)
    for name, text in _TEXT_FILES.items():
        yield initramfs.file(name, text.encode())
    for name, source in _PROGRAMS.items():
        yield initramfs.file(name, (tree / source).read_bytes(), 0o755)
    for name, path in _libraries(tree).items():
        yield initramfs.file(f"lib/{name}", path.read_bytes(), 0o755)
    modules = _modules(tree)
    for name, content in modules.items():
        yield initramfs.file(f"lib/modules/{name}.ko", content)
    yield initramfs.file("etc/modules", "".join(f"{name}.ko\n" for name in modules).encode())


def _libraries(tree: Path) -> dict[str, Path]:
    """Return the libraries of the daemons and those for pushed programs, all for one flat /lib."""
    known = {path.name: path for path in sorted(tree.rglob("*.so*")) if path.is_file()}
    try:
        found = closure((tree / source for source in _PROGRAMS.values()), known)
        found |= {name: known[name] for name in (*_LIBRARIES, _LOADER)}
        return found | closure(found.values(), known)
    except (KeyError, ValueError) as cause:
        raise StageError(f"the machine's libraries are not complete: {cause}") from cause


def _modules(tree: Path) -> dict[str, bytes]:
    """Return the kernel modules that the network needs, each after those that it depends on."""
    built_in = {
        line.rpartition("/")[2].removesuffix(".ko").replace("-", "_")
        for line in _only(tree, "**/modules.builtin").read_text(encoding="utf-8").split()
    }
    files = {path.name.partition(".ko")[0].replace("-", "_"): path for path in tree.rglob("*.ko*")}
    ordered: dict[str, bytes] = {}
    for name in _MODULES:
        _add_module(name, files, built_in, ordered)
    return ordered


def _add_module(name: str, files: Mapping[str, Path], built_in: set[str], ordered: dict[str, bytes]) -> None:
    if name in ordered or (name in built_in and name not in files):
        return
    if name not in files:
        raise StageError(f"the kernel has no module {name}")
    content = files[name].read_bytes()
    if files[name].suffix == ".xz":
        content = lzma.decompress(content)
    match = _DEPENDS.search(content)
    for other in match[1].decode().split(",") if match and match[1] else ():
        _add_module(other.replace("-", "_"), files, built_in, ordered)
    ordered[name] = content


def _only(tree: Path, pattern: str) -> Path:
    found = sorted(tree.glob(pattern))
    if not found:
        raise StageError(f"no fetched package has {pattern}")
    return found[-1]


def _recipe() -> str:
    parts = [_VERSION, _ARCHITECTURE, _KERNEL, _SHELL, _DAEMONS, _PROGRAMS, _LIBRARIES, _MODULES, _TEXT_FILES]
    text = json.dumps([*parts, init_script().decode()])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
