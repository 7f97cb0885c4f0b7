"""Every piece that measuring for a profile takes: there or not, and what mends it."""

import platform
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mobilekd.benchmarking import place
from mobilekd.device import building, cpus, guest, runtimes, web_runtime
from mobilekd.device_tools import (
    browser,
    cross_compiler,
    emulator_tools,
    host_compiler,
    machine_tools,
    npm,
    pip,
    program,
)
from mobilekd.devices import outlook
from mobilekd.doctor import Check
from mobilekd.errors import DeviceError, MissingToolError
from mobilekd.profile import Profile

_CLIENTS = {"adb": "adb", "ssh": "ssh"}


@dataclass(frozen=True, slots=True)
class Aim:
    """What a profile's models are to be measured on.

    Attributes:
        kind: The device where one is ready or demanded, else the emulator where the profile names a CPU, else this
            host.
        machine: Of the runner and the runtimes, as `uname -m` says it.
    """

    kind: place.Kind
    machine: str


def aim_of(profile: Profile) -> Aim:
    """Return what a profile's models are to be measured on."""
    settings = profile.device
    found = outlook(profile).place
    kind: place.Kind = "host"
    if settings.place != "auto":
        kind = settings.place
    elif found is not None and found.kind == "device":
        kind = "device"
    elif settings.cpu:
        kind = "emulator"
    is_arm = kind != "host" and profile.target.abi in cpus.EMULATED_ABIS
    return Aim(kind, "aarch64" if is_arm else platform.machine())


def examine(profile: Profile, state: Path) -> tuple[Check, ...]:
    """Return every piece; `is_needed` marks those without which the profile can't be measured as it asks.

    Args:
        profile: For whom.
        state: Folder of this host for what is built and downloaded for devices.
    """
    if profile.device.transport == "web" and profile.device.place in ("auto", "device"):
        return _page(profile, state)
    aim = aim_of(profile)
    is_arm = aim.machine == "aarch64"
    return (
        *_devices(profile, aim),
        *(
            program("device", name, is_needed=aim.kind == "device" and profile.device.transport == name)
            for name in _CLIENTS
        ),
        cross_compiler(is_needed=is_arm and platform.machine() != "aarch64"),
        *(() if profile.device.cpu else (host_compiler(is_needed=not is_arm),)),
        *(emulator_tools(is_needed=aim.kind == "emulator") if profile.device.cpu else ()),
        *_made(profile, aim, state),
        *machine_tools(is_needed=False),
        _guest(profile, state),
    )


def deployed_backends(profile: Profile) -> tuple[str, ...]:
    """Return the backends of a profile that have a runtime for devices."""
    wanted = dict.fromkeys(one.backend for one in profile.deployments())
    return tuple(name for name in wanted if name in runtimes.backends())


def _page(profile: Profile, state: Path) -> tuple[Check, ...]:
    """Return what measuring in a browser takes."""
    there = web_runtime.find(state)
    return (
        browser(profile.device.browser or ""),
        _once(profile, "runtime", f"onnxruntime: {web_runtime.pin().told}", there),
        npm(is_needed=there is None and not web_runtime.laid_tarball(state).is_file()),
    )


def _devices(profile: Profile, aim: Aim) -> Iterator[Check]:
    try:
        found = place.find(profile, "device")
    except (DeviceError, MissingToolError) as lack:
        # A device that was named and is not there is an error wherever else the models could be measured.
        is_named = not isinstance(lack, place.NotThereError | MissingToolError)
        is_needed = aim.kind == "device" or is_named
        yield Check("device", "attached", is_ok=False, detail=lack.message, mend=lack.hint, is_needed=is_needed)
    else:
        yield Check("device", "attached", is_ok=True, detail=found.told, is_needed=aim.kind == "device")


def _made(profile: Profile, aim: Aim, state: Path) -> Iterator[Check]:
    """Yield what a build or `mobilekd devices setup` makes once."""
    there = building.find_runner(aim.machine, state)
    yield _once(profile, "runner", f"mkdrun for {aim.machine}", there)
    if aim.kind == "emulator":
        yield _once(profile, "emulator", "plug-in that counts", building.find_counting_plugin(state))
    absent = False
    for backend in deployed_backends(profile):
        pin = runtimes.pin(backend)
        name = f"{backend}: {pin.distribution} {pin.version} for {aim.machine}"
        try:
            found = runtimes.find(backend, aim.machine, state)
        except MissingToolError as lack:
            yield Check("runtime", name, is_ok=False, detail=lack.message, mend=lack.hint, is_needed=True)
            continue
        absent = absent or found is None
        yield _once(profile, "runtime", name, found.library if found else None)
    yield pip(is_needed=absent)


def _once(profile: Profile, area: str, name: str, path: Path | None) -> Check:
    if path is not None:
        return Check(area, name, is_ok=True, detail=str(path))
    is_set_up = profile.device.cpu or profile.device.transport == "web"
    mend = f"mobilekd devices setup --profile {profile.name}" if is_set_up else ""
    return Check(area, name, is_ok=False, detail="not there yet; made on first use", mend=mend)


def _guest(profile: Profile, state: Path) -> Check:
    made = guest.find(state)
    if made is not None:
        return Check("machine", "arm64 machine", is_ok=True, detail=str(made.kernel.parent))
    mend = f"mobilekd devices setup --profile {profile.name} --vm" if profile.device.cpu else ""
    return Check("machine", "arm64 machine", is_ok=False, detail="not made; no benchmark needs it", mend=mend)
