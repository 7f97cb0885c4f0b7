"""The programs that measuring on a device or an emulator takes: which are here, and what brings the rest."""

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable

from mobilekd.device import browsers, building, cpus
from mobilekd.doctor import Check
from mobilekd.errors import MissingToolError
from mobilekd.transports import qemu
from mobilekd.versions import ABSENT, tool_version

_APT = "apt-get install --yes --no-install-recommends"
_TIMEOUT_S = 20.0
_ON_DEBIAN = "make the virtual machine on Debian or in docker/emulator"

_CROSS_PACKAGES = "gcc-aarch64-linux-gnu libc6-dev-arm64-cross"
_LIBRARY_PACKAGES = "libc6-dev-arm64-cross libstdc++6-arm64-cross"
_PROGRAMS = {
    "adb": (("version",), "adb"),
    "ssh": (("-V",), "openssh-client"),
    "ssh-keygen": ((), "openssh-client"),
    "qemu-system-aarch64": (("--version",), "qemu-system-arm"),
}
"""Words that make a program tell its version (none: it has no such word), and the Debian package that brings it."""


def emulator_tools(*, is_needed: bool) -> tuple[Check, ...]:
    """Return what qemu's user mode takes."""
    return (
        _tried("emulator", "qemu-aarch64", qemu.qemu_version, "qemu-user", is_needed=is_needed),
        _plugins(is_needed=is_needed),
        host_compiler(is_needed=is_needed),
        _tried("emulator", "arm64 C library", _libraries, _LIBRARY_PACKAGES, is_needed=is_needed),
    )


def cross_compiler(*, is_needed: bool) -> Check:
    """Return the compiler of the runner for arm64."""

    def version() -> str:
        return building.compiler("aarch64").version

    return _tried("runner", "arm64 C compiler", version, _CROSS_PACKAGES, is_needed=is_needed)


def host_compiler(*, is_needed: bool) -> Check:
    """Return the compiler of the plug-in that counts, and of the runner for this host."""

    def version() -> str:
        return building.host_compiler().version

    return _tried("runner", "C compiler", version, "gcc libc6-dev", is_needed=is_needed)


def pip(*, is_needed: bool) -> Check:
    """Return the program that downloads the runtimes; virtual environments of some makers come without it."""
    version = tool_version("pip")  # find_spec would wake setuptools, which warns where distutils is loaded
    is_ok = version != ABSENT
    detail = version if is_ok else f"{sys.executable} has no pip, which downloads the runtimes"
    mend = "" if is_ok else f"{sys.executable} -m ensurepip"
    return Check("runner", "pip", is_ok, detail, mend, is_needed)


def program(area: str, name: str, *, is_needed: bool) -> Check:
    """Return one of the programs that reach a device or are one: adb, ssh, ssh-keygen, qemu-system-aarch64."""
    words, package = _PROGRAMS[name]
    return _tried(area, name, lambda: _version(name, words), package, is_needed=is_needed)


def browser(wanted: str) -> Check:
    """Return the browser that pages are measured in; `wanted` as `device.browser` of a profile."""

    def version() -> str:
        found = browsers.find_browser(wanted)
        return f"{found.version}: {found.program}" + (
            "" if browsers.is_sandboxed() else ", for root without its sandbox"
        )

    return _tried("device", "browser", version, "chromium", is_needed=True)


def npm(*, is_needed: bool) -> Check:
    """Return the program that downloads what a page runs models with."""
    return _tried("runtime", "npm", lambda: _version("npm", ("--version",)), "npm", is_needed=is_needed)


def machine_tools(*, is_needed: bool) -> tuple[Check, ...]:
    """Return what the virtual machine takes."""
    return (
        *(program("machine", name, is_needed=is_needed) for name in ("qemu-system-aarch64", "ssh-keygen")),
        *(_of_debian(name, is_needed=is_needed) for name in ("apt-get", "dpkg-deb")),
    )


def remedy(checks: Iterable[Check]) -> str:
    """Return what mends all of these: the packages of all of them in one command, then the rest.

    Example:
        >>> remedy([Check("a", "qemu", False, "", f"{_APT} qemu-user"), Check("a", "adb", False, "", f"{_APT} adb")])
        'apt-get install --yes --no-install-recommends adb qemu-user'
    """
    mends = [one.mend for one in checks if not one.is_ok and one.mend]
    packages = sorted({word for mend in mends if mend.startswith(_APT) for word in mend.removeprefix(_APT).split()})
    others = dict.fromkeys(mend for mend in mends if not mend.startswith(_APT))
    return "; ".join([*([f"{_APT} {' '.join(packages)}"] if packages else []), *others])


def _tried(area: str, name: str, version: Callable[[], str], packages: str, *, is_needed: bool) -> Check:
    try:
        return Check(area, name, is_ok=True, detail=version(), is_needed=is_needed)
    except MissingToolError as lack:
        return Check(area, name, is_ok=False, detail=lack.message, mend=f"{_APT} {packages}", is_needed=is_needed)


def _plugins(*, is_needed: bool) -> Check:
    name = "plug-ins of qemu-aarch64"
    try:
        qemu.need_plugins()
    except MissingToolError as lack:
        is_there = shutil.which("qemu-aarch64") is not None  # then no package of this system has one that takes them
        mend = lack.hint if is_there else f"{_APT} qemu-user"
        return Check("emulator", name, is_ok=False, detail=lack.message, mend=mend, is_needed=is_needed)
    return Check("emulator", name, is_ok=True, detail="instructions can be counted", is_needed=is_needed)


def _libraries() -> str:
    cpus.need_libraries()
    return str(cpus.CROSS_LIBRARIES)


def _of_debian(name: str, *, is_needed: bool) -> Check:
    where = shutil.which(name)
    mend = "" if where else _ON_DEBIAN
    return Check("machine", name, where is not None, where or f"{name} is not on PATH", mend, is_needed)


def _version(name: str, words: tuple[str, ...]) -> str:
    """Return the first line that a program prints of itself; its path where no words make it tell a version."""
    where = shutil.which(name)
    if where is None:
        raise MissingToolError(f"{name} is not on PATH", code="MKD-301")
    if not words:
        return where
    try:
        done = subprocess.run([where, *words], capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as cause:
        raise MissingToolError(f"{where} does not start: {cause}", code="MKD-301") from cause
    return (done.stdout + done.stderr).strip().partition("\n")[0]
