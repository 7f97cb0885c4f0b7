"""What is installed and reachable, and for each problem the one command that mends it."""

import importlib.metadata
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mobilekd import config, toolchain
from mobilekd.backend import Backend
from mobilekd.benchmarking import place
from mobilekd.cache import Cache
from mobilekd.errors import DeviceError, MissingToolError
from mobilekd.paths import free_bytes
from mobilekd.plugins import BACKENDS
from mobilekd.profile import Profile
from mobilekd.versions import ABSENT, tool_version
from mobilekd.wiring import expand

_LOW_DISK_BYTES = 5_000_000_000
_REQUIREMENT = re.compile(r"^([A-Za-z0-9._-]+).*extra == ['\"]([a-z]+)['\"]")
_USER_EXTRAS = ("train", "onnx", "tflite", "mnn", "tensorrt", "executorch", "coreml")


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the doctor's report.

    Attributes:
        is_needed: The default build can't run while this does not hold.
        mend: What to do, empty when all is well.
    """

    area: str
    name: str
    is_ok: bool
    detail: str
    mend: str = ""
    is_needed: bool = False


def examine(pipeline: str, profile: str, cache: Cache, toolchains: Path) -> tuple[Check, ...]:
    """Return everything that can be checked without importing a framework."""
    return (
        Check("python", f"{sys.version_info[0]}.{sys.version_info[1]}", is_ok=True, detail=sys.executable),
        *_packages(),
        *_backends(),
        *_toolchains(toolchains),
        _disk(cache),
        *_devices(config.load_profile(profile)),
        *_build(config.load_pipeline(pipeline), profile),
    )


def _packages() -> Iterator[Check]:
    """Yield one check for each extra of the package."""
    extras: dict[str, list[str]] = {extra: [] for extra in _USER_EXTRAS}
    for line in importlib.metadata.requires("mobilekd") or ():
        found = _REQUIREMENT.match(line)
        if found and found[2] in extras:
            extras[found[2]].append(found[1])
    for extra, names in extras.items():
        absent = [name for name in names if tool_version(name) == ABSENT]
        detail = ", ".join(f"{name} {tool_version(name)}" for name in names)
        mend = f"pip install 'mobilekd[{extra}]'" if absent else ""
        yield Check("packages", extra, is_ok=not absent, detail=detail, mend=mend)


def _backends() -> Iterator[Check]:
    for name in BACKENDS.names():
        backend: Backend = BACKENDS.load(name)()
        missing = backend.missing()
        yield Check("backend", name, is_ok=missing is None, detail=missing or ", ".join(backend.precisions))


def _toolchains(root: Path) -> Iterator[Check]:
    """Yield the environments that backends convert in; one that is not made yet is no fault: a build makes it."""
    for name in sorted({one for backend in BACKENDS.names() for one in BACKENDS.load(backend).toolchains}):
        status = toolchain.status(name, root)
        place = status.path if status.ready else f"made on first use in {root}"
        yield Check("toolchain", name, is_ok=True, detail=f"{status.detail}; {place}")


def _disk(cache: Cache) -> Check:
    free = free_bytes(cache.root)
    mend = "mobilekd cache prune, or choose another disk with MOBILEKD_CACHE" if free < _LOW_DISK_BYTES else ""
    return Check("cache", str(cache.root), is_ok=not mend, detail=f"{free / 1e9:.1f} GB free", mend=mend)


def _devices(profile: Profile) -> Iterator[Check]:
    """Yield the places that a build could measure in, beside this host, which always does."""
    kinds: tuple[place.Kind, ...] = ("device", "emulator") if profile.device.cpu else ("device",)
    for kind in kinds:
        name = f"{kind} for {profile.name}"
        try:
            found = place.find(profile, kind)
        except (DeviceError, MissingToolError) as lack:
            yield Check("device", name, is_ok=False, detail=lack.message, mend=lack.hint)
        else:
            yield Check("device", name, is_ok=True, detail=found.told)


def _build(pipeline: config.Pipeline, profile: str) -> Iterator[Check]:
    """Yield what the stages of a build miss."""
    name = f"{pipeline.name} for {profile}"
    lines = [
        (stage.label(), line) for stage in expand(pipeline, config.load_profile(profile)) for line in stage.missing()
    ]
    if not lines:
        yield Check("build", name, is_ok=True, detail="every stage finds its tools")
    for line in dict.fromkeys(line for _, line in lines):
        labels = ", ".join(label for label, told in lines if told == line)
        yield Check("build", name, is_ok=False, detail=labels, mend=line, is_needed=True)
