"""The shared libraries of the runtimes, out of their pinned wheels: for a device's machine, not for this Python.

The pins are in runtimes.toml, by mobilekd's own backend names.
"""

import fnmatch
import hashlib
import shlex
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata, resources
from pathlib import Path

from mobilekd.device.building import Teller
from mobilekd.errors import ConfigError, MissingToolError, VerificationError

_DOWNLOAD_TIMEOUT_S = 600.0
_PYTHON = "311"
# pip takes a tag as it stands: manylinux_2_28 does not stand for 2_17, so all of them are named.
_GLIBC_MINORS = (17, 24, 26, 27, 28, 31, 34, 35)


@dataclass(frozen=True, slots=True)
class Pin:
    """One runtime as runtimes.toml pins it.

    Attributes:
        distribution, version: Of the wheel.
        runner: The word for it on mkdrun's command line.
        library: Pattern of the wheel's member that is the runtime.
        push_as: Its file name on a device.
        needs: Patterns of the members that the library needs beside it.
        sha256: Of the wheel, by machine.
    """

    distribution: str
    version: str
    runner: str
    library: str
    push_as: str
    needs: tuple[str, ...]
    sha256: dict[str, str]

    def is_need(self, name: str) -> bool:
        """Return True for the file name of something that the library needs beside it."""
        return any(fnmatch.fnmatch(name, pattern.rpartition("/")[2]) for pattern in self.needs)


@dataclass(frozen=True, slots=True)
class Runtime:
    """A runtime's files on this host: the library, and those that it needs beside it."""

    library: Path
    needs: tuple[Path, ...]


def backends() -> tuple[str, ...]:
    """Return the backends that have a runtime for devices."""
    return tuple(_pins())


def pin(backend: str) -> Pin:
    """Return what runtimes.toml says of a backend.

    Raises:
        ConfigError: It has no runtime for devices.
    """
    pins = _pins()
    if backend not in pins:
        raise ConfigError(
            f"backend {backend!r} has no runtime for devices", hint=f"those that do: {', '.join(pins)}", code="MKD-232"
        )
    return pins[backend]


def runtime(backend: str, machine: str, root: Path, progress: Teller) -> Runtime:
    """Return the files of a runtime for a machine, downloaded first where they are not there.

    On a host of that machine an installed package of the pinned version is used as it is.

    Args:
        backend: As "tflite".
        machine: "aarch64" or "x86_64".
        root: State folder; the files are kept in root/runtimes.
        progress: Told when something is downloaded.

    Raises:
        ConfigError: There is no such runtime for that machine.
        MissingToolError: The wheel could not be had; the hint is the command that was tried.
        VerificationError: The wheel is not the one that was pinned.
    """
    there = find(backend, machine, root)
    if there is not None:
        return there
    wanted = pin(backend)
    folder = _kept(wanted, machine, root)
    _fetch(wanted, machine, folder, progress)
    return _in_folder(wanted, folder)


def find(backend: str, machine: str, root: Path) -> Runtime | None:
    """Return the files of a runtime if they are on this host; downloads nothing.

    Raises:
        ConfigError: There is no such runtime for that machine.
        MissingToolError: What was downloaded is not complete.
    """
    wanted = pin(backend)
    if machine not in wanted.sha256:
        raise ConfigError(
            f"{backend} has no runtime for {machine}", hint=f"machines: {', '.join(wanted.sha256)}", code="MKD-232"
        )
    folder = _kept(wanted, machine, root)
    return _installed(wanted, machine) or (_in_folder(wanted, folder) if folder.is_dir() else None)


def download_argv(wanted: Pin, machine: str, to: Path) -> list[str]:
    """Return the command that downloads a wheel for a machine."""
    platforms = [f"manylinux_2_{minor}_{machine}" for minor in _GLIBC_MINORS] + [f"manylinux2014_{machine}"]
    argv = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest", str(to)]
    argv += ["--implementation", "cp", "--python-version", f"{_PYTHON[0]}.{_PYTHON[1:]}"]
    argv += [word for abi in (f"cp{_PYTHON}", "abi3", "none") for word in ("--abi", abi)]
    argv += [word for platform in platforms for word in ("--platform", platform)]
    return [*argv, f"{wanted.distribution}=={wanted.version}"]


def _kept(wanted: Pin, machine: str, root: Path) -> Path:
    return root / "runtimes" / f"{wanted.distribution}-{wanted.version}-{machine}-{wanted.sha256[machine][:16]}"


def _in_folder(wanted: Pin, folder: Path) -> Runtime:
    return _found(wanted, [(file.relative_to(folder).as_posix(), file) for file in _files(folder)], folder)


def _pins() -> dict[str, Pin]:
    text = (resources.files("mobilekd.device") / "runtimes.toml").read_text(encoding="utf-8")
    found = {}
    for name, entry in tomllib.loads(text).items():
        sha256 = {machine: wheel["sha256"] for machine, wheel in entry.pop("wheels").items()}
        found[name] = Pin(**{**entry, "needs": tuple(entry["needs"])}, sha256=sha256)
    return found


def _installed(wanted: Pin, machine: str) -> Runtime | None:
    """Return the files of this Python's own package, when it is for that machine and of the pinned version."""
    import platform

    if platform.machine() != machine or sys.platform != "linux":
        return None
    try:
        package = metadata.distribution(wanted.distribution)
    except metadata.PackageNotFoundError:
        return None
    if package.version != wanted.version or package.files is None:
        return None
    return _found(wanted, [(str(file), Path(str(file.locate()))) for file in package.files], Path(sys.prefix))


def _found(wanted: Pin, files: Sequence[tuple[str, Path]], where: Path) -> Runtime:
    """Return the library and its needs among files, given as (name in the wheel, path)."""

    def matching(pattern: str) -> Path:
        for name, path in files:
            if fnmatch.fnmatch(name, pattern):
                return path
        raise MissingToolError(
            f"{where}: {wanted.distribution} {wanted.version} has no {pattern}",
            hint=f"remove {where} to have it downloaded again",
            code="MKD-306",
        )

    return Runtime(matching(wanted.library), tuple(matching(pattern) for pattern in wanted.needs))


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.is_file())


def _fetch(wanted: Pin, machine: str, folder: Path, progress: Teller) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    progress.say(f"downloading {wanted.distribution} {wanted.version} for {machine}")
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder.parent) as scratch:
        work = Path(scratch)
        wheel = _download(wanted, machine, work)
        found = hashlib.sha256(wheel.read_bytes()).hexdigest()
        if found != wanted.sha256[machine]:
            raise VerificationError(
                f"{wheel.name} has sha256 {found}, and {wanted.sha256[machine]} was pinned",
                hint="the package index serves another file than the one that was tested",
                code="MKD-708",
            )
        _extract(wanted, wheel, work / "files")
        if not folder.is_dir():
            (work / "files").rename(folder)


def _download(wanted: Pin, machine: str, to: Path) -> Path:
    argv = download_argv(wanted, machine, to)
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=_DOWNLOAD_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as cause:
        raise MissingToolError(
            f"{wanted.distribution} {wanted.version} for {machine} was not downloaded in {_DOWNLOAD_TIMEOUT_S:.0f} s",
            hint=shlex.join(argv),
            code="MKD-306",
        ) from cause
    wheels = list(to.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        said = (done.stderr.strip().splitlines() or [f"pip ended with exit code {done.returncode}"])[-1]
        raise MissingToolError(
            f"{wanted.distribution} {wanted.version} for {machine} could not be downloaded: {said}",
            hint=f"needs a package index once: {shlex.join(argv)}",
            code="MKD-306",
        )
    return wheels[0]


def _extract(wanted: Pin, wheel: Path, to: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if any(fnmatch.fnmatch(name, pattern) for pattern in (wanted.library, *wanted.needs)):
                archive.extract(name, to)
