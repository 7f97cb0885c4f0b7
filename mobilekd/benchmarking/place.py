"""Where the models of a profile are measured: an attached device, an emulator of one, or this host."""

import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mobilekd.benchmarking import pages
from mobilekd.device import browsers, building, cpus, debs, guest, web_runtime
from mobilekd.errors import DeviceError, MissingToolError
from mobilekd.measurement import host_name, is_target
from mobilekd.profile import Profile
from mobilekd.transport import Patience, Transport
from mobilekd.transports import adb, qemu, ssh, vm
from mobilekd.transports.local import Local
from mobilekd.transports.web import Web

Kind = Literal["device", "emulator", "host"]
_ANDROID_EMULATOR = "emulator-"
"""Start of the serial of Android's own emulator; it is measured when it is named, and never called the target."""
_NO_PHONE = "an emulator, whose times are not those of a phone"

_NAMED_TIMEOUT_S = 2.0
_PREFERRED: tuple[Kind, ...] = ("device", "emulator")


@dataclass(frozen=True, slots=True)
class Place:
    """One place to measure in.

    Attributes:
        kind: What it is.
        transport: Plug-in that reaches it: "adb", "ssh", "web", "qemu", "vm" or "local".
        name: Which one: a serial, an ssh host, a browser, a CPU model, this host's processor.
        on_target: Whether its times are those of the profile's target.
        why: Why it is no device, where the profile left the choice to us; else empty.
    """

    kind: Kind
    transport: str
    name: str
    on_target: bool
    why: str = ""

    @property
    def told(self) -> str:
        """Return the place for a table, as "emulated cortex-a76"."""
        if self.kind == "emulator":
            return f"emulated {self.name}" + (" (virtual machine)" if self.transport == "vm" else "")
        if self.kind == "host":
            return f"host ({platform.machine()})" + ("" if self.on_target else ", not the target")
        return f"{self.name} on this host" if self.transport == "web" else f"{self.transport} {self.name}"


def choose(profile: Profile) -> Place:
    """Return where a profile's models are measured now.

    Looks for the device, then for the emulator; an emulator that is not wanted is not looked for. Starts no model.

    Raises:
        DeviceError: The profile or command line names a device that is not there, or several are attached.
        MissingToolError: It asks for the emulator, and a part of that is not installed.
    """
    wanted = profile.device.place
    if wanted != "auto":
        return find(profile, wanted)
    passed_over: list[str] = []
    for kind in _PREFERRED:
        try:
            place = find(profile, kind)
        except NotThereError as lack:
            passed_over.append(lack.message)
        except MissingToolError as lack:
            passed_over.append(f"{lack.message} ({lack.hint})")
        else:
            return Place(place.kind, place.transport, place.name, place.on_target, "; ".join(passed_over))
    place = _host(profile)
    return Place(place.kind, place.transport, place.name, place.on_target, "; ".join(passed_over))


def find(profile: Profile, kind: Kind) -> Place:
    """Return a profile's place of one kind.

    Raises:
        DeviceError: There is none now.
        MissingToolError: A part of it is not installed.
    """
    finders = {"device": _device, "emulator": _emulator, "host": _host}
    return finders[kind](profile)


def open_place(place: Place, profile: Profile, state: Path, say: Callable[[str], None] = lambda _: None) -> Transport:
    """Return the transport of a place; entering it takes the device, and waits for another process that has it.

    Args:
        place: What `choose` gave.
        profile: Whose device.
        state: Folder of this host for what is built, downloaded and locked.
        say: Takes a line of progress: who is waited for, and what is made or downloaded first.

    Raises:
        MissingToolError: Those parts can't be made on this host.
    """
    patience = Patience(say=say)
    makers: dict[str, Callable[[], Transport]] = {
        "adb": lambda: adb.Adb(place.name, state=state, patience=patience),
        "ssh": lambda: ssh.Ssh(profile.device.host, state=state, patience=patience),
        "qemu": lambda: qemu.Qemu(state, place.name),
        "web": lambda: _page(profile, state, say),
        "vm": lambda: _machine(place.name, state, say),
        "local": lambda: Local(state, patience),
    }
    return makers[place.transport]()


class NotThereError(DeviceError):
    """No device is attached, and none was named: the next kind of place may do."""


def _device(profile: Profile) -> Place:
    settings = profile.device
    if settings.transport == "adb":
        serial = _phone(settings.serial or os.environ.get("ANDROID_SERIAL", ""))
        return Place("device", "adb", serial, on_target=not serial.startswith(_ANDROID_EMULATOR))
    if settings.transport == "ssh":
        if not settings.host:
            raise NotThereError(
                "no board is named", hint="--set profile.device.host=HOST, as `ssh HOST` takes it", code="MKD-512"
            )
        ssh.check_reachable(settings.host)
        return Place("device", "ssh", settings.host, on_target=True)
    if settings.transport == "web":
        return _browser(profile)
    if settings.transport == "local" and is_target(profile.target):
        return _host(profile)
    raise NotThereError(
        f"profile {profile.name} reaches no device from this host",
        hint='give [device] transport = "adb", "ssh" or "web"',
        code="MKD-512",
    )


def _browser(profile: Profile) -> Place:
    pages.check_choices(profile)
    found = browsers.find_browser(profile.device.browser or "")
    # A browser is the target of a page as this host is that of a Linux program: unless the target names a chip.
    on_target = profile.target.os == "web" and not profile.target.chip
    return Place("device", "web", found.version, on_target)


def _phone(serial: str) -> str:
    """Return the serial of the phone to use, which is ready; an adb that hangs has none, unless one is named."""
    if serial:
        adb.Adb(serial, state=Path(), connect_timeout_s=_NAMED_TIMEOUT_S).wait_until_ready()
        return serial
    try:
        attached = adb.attached()
    except DeviceError as trouble:
        raise NotThereError(trouble.message, hint=trouble.hint, code=trouble.code) from trouble
    ready = [name for name, state in attached.items() if state == "device" and not name.startswith(_ANDROID_EMULATOR)]
    if len(ready) == 1:
        return ready[0]
    if ready:
        raise DeviceError(
            f"{len(ready)} adb devices are attached: {', '.join(ready)}",
            hint=f"choose one: export ANDROID_SERIAL={ready[0]}; or --set profile.device.place=emulator",
            code="MKD-502",
        )
    unready = ", ".join(f"{name} is {_NO_PHONE if state == 'device' else state}" for name, state in attached.items())
    raise NotThereError(
        f"no phone is ready: {unready}" if unready else "no phone is attached",
        hint="plug one in with USB debugging on: adb devices",
        code="MKD-501",
    )


def _emulator(profile: Profile) -> Place:
    name = profile.device.cpu
    if not name:
        raise NotThereError(
            f"profile {profile.name} names no CPU to emulate", hint=f"known: {', '.join(cpus.CPUS)}", code="MKD-512"
        )
    transport = _EMULATORS[profile.device.emulator]()
    cpus.need_libraries()
    building.compiler("aarch64")
    if transport == "qemu":
        building.host_compiler()  # for the plug-in that counts
    return Place("emulator", transport, name, on_target=False)


def _by_plugin() -> str:
    qemu.need_plugins()
    return "qemu"


def _by_clock() -> str:
    vm.find_client()
    return "vm"


def _either() -> str:
    """Return "qemu" where the plug-in can count, else "vm".

    Raises:
        MissingToolError: Neither can. It is told what qemu-user lacks; or, where that is installed and takes no
            plug-ins, what the virtual machine lacks.
    """
    try:
        return _by_plugin()
    except MissingToolError as lack:
        user = lack
    try:
        debs.need_apt()
        return _by_clock()
    except MissingToolError as lack:
        if not qemu.is_installed():
            raise user from lack
        message = f"{user.message}, and a virtual machine can't count them: {lack.message}"
        raise MissingToolError(message, hint=lack.hint, code="MKD-304") from lack


_EMULATORS: dict[str, Callable[[], str]] = {"auto": _either, "qemu": _by_plugin, "vm": _by_clock}


def _page(profile: Profile, state: Path, say: Callable[[str], None]) -> Web:
    browser = browsers.find_browser(profile.device.browser or "")
    if not browsers.is_sandboxed():
        say(f"{browser.version} runs without its sandbox, as it must for root")
    return Web(state, browser, web_runtime.kit(state, say), Patience(say=say))


def _machine(cpu: str, state: Path, say: Callable[[str], None]) -> vm.Vm:
    guest.prepare(state, say)
    return vm.Vm(cpus.cpu(cpu).qemu, state=state, via=vm.find_client(), icount=True)


def _host(profile: Profile) -> Place:
    return Place("host", "local", host_name(), on_target=is_target(profile.target))
