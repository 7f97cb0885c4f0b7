"""From a bundle to the directory that an app developer works from."""

import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

import mobilekd
from mobilekd.artifacts import canonical_json, files_below
from mobilekd.backends._tflite_metadata import METADATA
from mobilekd.errors import ConfigError, VerificationError
from mobilekd.release.app.ai_pack import Variant, check_pack_name, variants, write_pack
from mobilekd.release.app.golden import write_golden
from mobilekd.release.app.literals import comment, identifier
from mobilekd.release.app.pack_check import TARGETING, check_pack
from mobilekd.release.app.snippets import ASSET_FOLDER, ASSET_NAME, coded_models, snippets
from mobilekd.release.app.templates import fill, fit_of, pixel_values
from mobilekd.release.bundle import unpack
from mobilekd.release.manifest import Manifest, ModelEntry, file_entries

_METADATA = """
**TFLite.** The .tflite has its labels and its normalisation inside (TFLite metadata). Its output is logits.
"""


@dataclass(frozen=True, slots=True)
class App:
    """What was written for an app.

    Attributes:
        folder: The directory.
        bundle: Digest of the bundle that it was made from.
        pack: Name of the AI pack.
        variants: Models of the pack, as (device group, deployment); an empty group is every device.
        code: Files of code, by deployment.
        without_code: Deployments that no code is written for.
    """

    folder: str
    bundle: str
    pack: str
    variants: tuple[tuple[str, str], ...]
    code: dict[str, tuple[str, ...]]
    without_code: tuple[str, ...]

    def to_json(self) -> dict[str, object]:
        """Return plain JSON values."""
        return asdict(self)


def write_app(bundle: Path, out: Path, *, pack_name: str = "", backend: str = "") -> App:
    """Write models, code, an AI pack and golden pairs for an app.

    Args:
        bundle: A bundle.zip or a bundle folder; every digest in it is checked first.
        out: A directory that is not there yet; it appears whole or not at all.
        pack_name: Of the AI pack; empty makes one from the data set's name.
        backend: Whose model the AI pack holds; empty takes TFLite where there is one.

    Raises:
        ConfigError: out is there, a name is not allowed, or no code is written for these models.
        VerificationError: The bundle is not what was packed, or the pack breaks a rule of Google Play.
    """
    if out.exists() or out.is_symlink():
        raise ConfigError(
            f"{out} is there already", hint="give a directory that is not there with --out", code="MKD-262"
        )
    if pack_name:
        check_pack_name(pack_name)
    _make_parent(out)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as scratch:
        source, made = Path(scratch) / "bundle", Path(scratch) / "app"
        source.mkdir()
        manifest, digest = unpack(bundle, source)
        models = coded_models(manifest)
        chosen = variants(manifest, models, backend)
        pack = pack_name or f"{identifier(manifest.dataset.name)}_model"
        app = App(
            folder=str(out),
            bundle=digest,
            pack=pack,
            variants=tuple((one.group, one.model.deployment) for one in chosen),
            code={model.deployment: tuple(snippets(manifest, model)) for model in models},
            without_code=tuple(one.deployment for one in manifest.models if one not in models),
        )
        _write_all(source, made, app, manifest, models)
        write_pack(source, made / "android", pack, chosen)
        if wrong := check_pack(made / "android", pack):
            raise VerificationError(f"the AI pack breaks Google Play's rules: {'; '.join(wrong)}")
        _write_listing(made, app, manifest, chosen)
        made.rename(out)
    return app


def _make_parent(out: Path) -> None:
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=out.parent).close()  # tells a folder that can't be written, before any work
    except OSError as cause:
        raise ConfigError(f"--out {out} can't be written: {cause.strerror}", hint="choose another --out DIR") from cause


def _write_all(source: Path, made: Path, app: App, manifest: Manifest, models: tuple[ModelEntry, ...]) -> None:
    for folder in ("models", "golden", "android"):
        (made / folder).mkdir(parents=True)
    shutil.copyfile(source / "labels.txt", made / "labels.txt")
    for model in models:
        shutil.copyfile(source / model.file, made / "models" / PurePosixPath(model.file).name)
        for name, text in snippets(manifest, model).items():
            (made / name).parent.mkdir(exist_ok=True)
            (made / name).write_text(text, "utf-8")
    write_golden(source, made / "golden", manifest, models)
    rule = manifest.preprocessing
    values = {
        **pixel_values(rule, ""),
        "title": comment(f"Preprocessing of {manifest.dataset.name}, bundle {app.bundle}."),
    }
    values["fit"] = fill(f"fit_{fit_of(rule)}.py", values)
    (made / "golden/preprocess.py").write_text(fill("preprocess.py", values), "utf-8")


def _write_listing(made: Path, app: App, manifest: Manifest, chosen: tuple[Variant, ...]) -> None:
    """Write README.md and app.json, which lists every other file with its digest."""
    default = chosen[-1].model
    groups = f"`{TARGETING}` goes beside the app's build.gradle.kts: " + ", ".join(
        f"group {one.group} gets {one.model.deployment}" for one in chosen
    )
    has_metadata = any(METADATA.encode() in file.read_bytes() for file in (made / "models").glob("*.tflite"))
    values: dict[str, object] = {
        "metadata": _METADATA if has_metadata else "",
        "title": comment(f"{manifest.dataset.name}: {len(manifest.labels)} classes"),
        "mobilekd": mobilekd.__version__,
        "digest": app.bundle,
        "profile": comment(manifest.profile.title),
        "code": ", ".join(f"`{name}`" for names in app.code.values() for name in names),
        "pack": app.pack,
        "resize": comment(manifest.preprocessing.resize),
        "groups": f"{groups}."
        if len(chosen) > 1
        else f"There are no device groups: every device gets {default.deployment}.",
        "asset": f"{ASSET_FOLDER}/{ASSET_NAME}{PurePosixPath(default.file).suffix}",
    }
    (made / "README.md").write_text(fill("readme.md", values), "utf-8")
    entries = file_entries(made, [path.as_posix() for path in files_below(made)])
    document = {key: value for key, value in app.to_json().items() if key != "folder"}
    files = [entry.model_dump(mode="json") for entry in entries]
    (made / "app.json").write_text(canonical_json({"schema": "mobilekd.app/1", **document, "files": files}), "utf-8")
