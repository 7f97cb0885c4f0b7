"""Is a device what a profile is for? Another machine is not measured as the target, nor more threads than cores."""

import os
from collections.abc import Callable, Mapping, Sequence

from mobilekd.benchmarking.place import Place
from mobilekd.benchmarking.threads import check_threads, told_cores
from mobilekd.device import cpus
from mobilekd.errors import ConfigError, DeviceError
from mobilekd.profile import Profile
from mobilekd.transport import DeviceFacts

_MACHINES: Mapping[str, tuple[str, ...]] = {
    "arm64-v8a": ("aarch64", "arm64"),
    "aarch64": ("aarch64", "arm64"),
    "armeabi-v7a": ("armv7l", "armv8l"),
    "x86_64": ("x86_64", "AMD64"),
}
"""What `uname -m` says on a device of each ABI; a page's is not asked for: WebAssembly runs on any."""
_MOST_A_CORE = 4
"""Threads a core on a host that stands in for a board: the shipped profiles' four threads run on one core, too."""
_DECISIVE = ("i8mm",)
"""CPU features that a profile is chosen for. SDOT is not among them: android-arm64 serves phones of either kind."""


def check_fits(profile: Profile, place: Place, facts: DeviceFacts, say: Callable[[str], None]) -> None:
    """Accept a device that is what the profile is for, and has the cores that it asks for; an emulator is what it is.

    Args:
        profile: What is asked for.
        place: A device, an emulator, or this host.
        facts: What it says of itself.
        say: Takes a line of progress: a host that stands in for the target runs more threads than it has cores.

    Raises:
        DeviceError: The device is another machine, or its CPU lacks a feature that the profile is chosen for.
        ConfigError: It has fewer cores than `benchmark.threads`, or not those of `benchmark.cores`.
    """
    if place.transport == "web" or place.kind == "emulator":
        return
    if place.kind == "device":
        check_kind(profile, facts)
        check_threads(profile.benchmark.threads, facts.cores, facts.name)
        return
    here = cpus_here()
    check_cores(profile.benchmark.cores, here)
    if place.on_target or profile.benchmark.threads > _MOST_A_CORE * len(here):
        check_threads(profile.benchmark.threads, len(here), "this host")
    elif profile.benchmark.threads > len(here):
        say(
            f"benchmark.threads is {profile.benchmark.threads}, and they wait for each other on {told_cores(len(here))}"
            f" of this host: --set profile.benchmark.threads={len(here)} takes less time"
        )


def check_kind(profile: Profile, facts: DeviceFacts) -> None:
    """Accept a device of the profile's ABI, with the features that the CPU has which stands for the profile's devices.

    Args:
        profile: Its `target.abi` and `device.cpu` say what the device must be.
        facts: What the device says of itself.

    Raises:
        DeviceError: It is another machine, or lacks such a feature.
    """
    wanted = _MACHINES.get(profile.target.abi)
    if wanted and facts.machine not in wanted:
        raise DeviceError(
            f"{facts.name} is a machine {facts.machine!r}, and profile {profile.name} is for "
            f"{profile.target.abi} ({' or '.join(wanted)})",
            hint="reach a device of that kind, or choose the profile of this one: mobilekd devices list",
            code="MKD-514",
        )
    needed = needed_features(profile)
    if lacking := [feature for feature in needed if feature not in facts.features]:
        raise DeviceError(
            f"{facts.name} ({facts.machine}) has no {' and no '.join(lacking)} in /proc/cpuinfo, and profile "
            f"{profile.name} is for CPUs with {' and '.join(needed)} (device.cpu is {profile.device.cpu!r})",
            hint="measure it with the profile of its CPU, as --profile android-arm64",
            code="MKD-514",
        )


def check_cores(cores: Sequence[int], here: Sequence[int]) -> None:
    """Accept CPUs to pin to that this host has and may use.

    Raises:
        ConfigError: One is not there.

    Example:
        >>> check_cores((0, 1), (0, 1, 2, 3))
    """
    if absent := [core for core in cores if core not in here]:
        raise ConfigError(
            f"benchmark.cores names CPU {', '.join(map(str, absent))}, which this host has not",
            hint=f"its CPUs: {', '.join(map(str, here))}",
            code="MKD-234",
        )


def cpus_here() -> tuple[int, ...]:
    """Return the CPUs of this host that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def needed_features(profile: Profile) -> tuple[str, ...]:
    """Return the CPU features without which a device is not what the profile is for.

    Example:
        >>> from mobilekd.config import load_profile
        >>> needed_features(load_profile("android-arm64-v9"))
        ('i8mm',)
    """
    if not profile.device.cpu:
        return ()
    features = cpus.cpu(profile.device.cpu).features
    return tuple(feature for feature in _DECISIVE if feature in features)
