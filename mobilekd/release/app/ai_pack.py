"""The AI pack of a bundle: a Gradle module whose assets Google Play delivers, by device group where there is a choice.

Every device can get the default variant, so it holds the smallest model; a
bigger and better one of the same runtime goes to devices with more memory.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from mobilekd.errors import ConfigError
from mobilekd.release.app.literals import comment, kotlin
from mobilekd.release.app.pack_check import DEFAULT_GROUP, NAME, NAMESPACE, TARGETING
from mobilekd.release.app.snippets import ASSET_FOLDER, ASSET_NAME, BACKENDS, runtime_version
from mobilekd.release.app.templates import fill
from mobilekd.release.manifest import Manifest, ModelEntry

HIGH_RAM, HIGH_RAM_BYTES = "high_ram", 6_000_000_000
_AGP, _AGP_TARGETING = "8.8", "8.10.0"


@dataclass(frozen=True, slots=True)
class Variant:
    """One model of a pack, and the device group that gets it; an empty group is every device."""

    group: str
    model: ModelEntry


def variants(manifest: Manifest, models: tuple[ModelEntry, ...], backend: str) -> tuple[Variant, ...]:
    """Return which model goes to which devices, the default last.

    Args:
        manifest: Of the bundle: sizes and top-1 of its models.
        models: Those that have app code.
        backend: Whose models the pack holds; empty takes the first of `BACKENDS` that there is.

    Raises:
        ConfigError: There is no model of that backend.
    """
    known = [name for name in BACKENDS if any(one.options.backend == name for one in models)]
    chosen = backend or known[0]
    if chosen not in known:
        raise ConfigError(
            f"--backend {chosen!r}: the bundle has no such model", hint=f"it has {', '.join(known)}", code="MKD-270"
        )
    sizes = {entry.path: entry.bytes for entry in manifest.files}
    top1 = _top1(manifest)
    smallest, *bigger = sorted(
        (one for one in models if one.options.backend == chosen), key=lambda one: sizes[one.file]
    )
    # One piece of app code serves all devices, so a group's model is fed and read as the default one.
    better = [
        one
        for one in bigger
        if (one.input, one.output) == (smallest.input, smallest.output)
        and top1.get(one.deployment, 0.0) > top1.get(smallest.deployment, 0.0)
    ]
    if not better:
        return (Variant("", smallest),)
    best = max(better, key=lambda one: top1[one.deployment])
    return Variant(HIGH_RAM, best), Variant(DEFAULT_GROUP, smallest)


def write_pack(source: Path, android: Path, pack: str, chosen: tuple[Variant, ...]) -> None:
    """Write the module, what the project's own Gradle files need, and the device groups.

    Args:
        source: The bundle, unpacked.
        android: An existing directory.
        pack: Name of the module; Google Play's name of the pack too.
        chosen: From `variants`.
    """
    for variant in chosen:
        folder = (
            android / pack / "src/main/assets" / (ASSET_FOLDER + (f"#group_{variant.group}" if variant.group else ""))
        )
        folder.mkdir(parents=True)
        suffix = PurePosixPath(variant.model.file).suffix
        shutil.copyfile(source / variant.model.file, folder / f"{ASSET_NAME}{suffix}")
        shutil.copyfile(source / "labels.txt", folder / "labels.txt")
    is_targeted = len(chosen) > 1
    values: dict[str, object] = {
        "pack": kotlin(pack),
        "module": kotlin(f":{pack}"),
        "agp": _AGP_TARGETING if is_targeted else _AGP,
        "dependency": _dependency(chosen[-1].model),
        "targeting": fill("targeting.gradle.kts", {}) if is_targeted else "",
    }
    (android / pack / "build.gradle.kts").write_text(fill("pack.gradle.kts", values), "utf-8")
    (android / "settings.snippet.gradle.kts").write_text(fill("settings.gradle.kts", values), "utf-8")
    (android / "app.snippet.gradle.kts").write_text(fill("app.gradle.kts", values), "utf-8")
    if is_targeted:
        (android / TARGETING).write_text(_targeting_xml(), "utf-8")


def check_pack_name(name: str) -> None:
    """Refuse a name that Google Play does not take.

    Raises:
        ConfigError: It is not a letter, then letters, digits and underscores.
    """
    if NAME.fullmatch(name) is None:
        raise ConfigError(
            f"--pack-name {name!r} is not a name of an AI pack", hint="a letter, then letters, digits and underscores"
        )


def _dependency(model: ModelEntry) -> str:
    version = runtime_version(model)
    if model.options.backend == "mnn":
        return f"// MNN is no Maven package: put libMNN.so of MNN {comment(version)} into src/main/jniLibs."
    names = {
        "tflite": "com.google.ai.edge.litert:litert",
        "onnxruntime": "com.microsoft.onnxruntime:onnxruntime-android",
    }
    return f"dependencies {{ implementation({kotlin(f'{names[model.options.backend]}:{version}')}) }}"


def _top1(manifest: Manifest) -> dict[str, float]:
    """Return top-1 by deployment, under the kernels that apps use by default."""
    found: dict[str, float] = {}
    for row in manifest.parity:
        if row.get("top1_deployed") is not None:
            found.setdefault(row["deployment"], row["top1_deployed"])
    return found


def _targeting_xml() -> str:
    return (
        f'<config:device-targeting-config xmlns:config="{NAMESPACE}">\n'
        f'    <config:device-group name="{HIGH_RAM}">\n'
        f'        <config:device-selector ram-min-bytes="{HIGH_RAM_BYTES}"/>\n'
        "    </config:device-group>\n"
        "</config:device-targeting-config>\n"
    )
