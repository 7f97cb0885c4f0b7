"""Is a device what a profile is for? What runs on another machine is not measured as the target's."""

from collections.abc import Mapping

from mobilekd.device import cpus
from mobilekd.errors import DeviceError
from mobilekd.profile import Profile
from mobilekd.transport import DeviceFacts

_MACHINES: Mapping[str, tuple[str, ...]] = {
    "arm64-v8a": ("aarch64", "arm64"),
    "aarch64": ("aarch64", "arm64"),
    "armeabi-v7a": ("armv7l", "armv8l"),
    "x86_64": ("x86_64", "AMD64"),
}
"""What `uname -m` says on a device of each ABI; a page's is not asked for: WebAssembly runs on any."""
_DECISIVE = ("i8mm",)
"""CPU features that a profile is chosen for. SDOT is not among them: android-arm64 serves phones of either kind."""


def check_fits(profile: Profile, facts: DeviceFacts) -> None:
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
