"""`mobilekd bench`: measure the models of a bundle, or one or two model files, where their profile says."""

import functools
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobilekd.benchmarking.agreement import Trained, refusals
from mobilekd.benchmarking.counts import compare_counts
from mobilekd.benchmarking.measure import Bench, Task, lack_of
from mobilekd.benchmarking.place import Place, choose
from mobilekd.cache import Cache
from mobilekd.comparison import compare
from mobilekd.errors import ConfigError, MissingToolError, StageError, VerificationError
from mobilekd.held_images import find_test_split, find_trained
from mobilekd.measurement import Measured
from mobilekd.profile import Profile
from mobilekd.stage import Progress

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mobilekd.backend import Float32
    from mobilekd.release.manifest import Preprocessing

SCHEMA = "mobilekd.bench/1"
_LONE_MODELS = {".tflite": "tflite", ".onnx": "onnxruntime", ".mnn": "mnn", ".engine": "tensorrt", ".pte": "executorch"}
_SUBJECTS = f"give a bundle, its folder, or a model file ({', '.join(_LONE_MODELS)})"


@dataclass(frozen=True, slots=True)
class Subject:
    """What is measured: models, what they are fed, and what parity said of them where they come from a bundle.

    `images_note` says why that is one image alone, and what gives more; empty where it is the test split.
    """

    models: tuple[Measured, ...]
    images: "Float32"
    labels: "NDArray[np.int64] | None"
    images_from: str
    top1: dict[str, float | None]
    trained: Trained | None = None
    images_note: str = ""


def measure(
    paths: Sequence[Path], profile: Profile, cache: Cache, devices: Path, progress: Progress, *, layers: bool = False
) -> dict[str, Any]:
    """Return the document of `mobilekd bench --json` (docs/devices.md).

    A bundle's models answer the test split, which is found in the cache by its digests; without it they answer the
    bundle's reference image, and `images_from` says so. Lone model files are fed noise.

    Args:
        paths: A bundle or a model file; of two, which must hold one model each, the second is compared with the first.
        profile: Where, and how.
        cache: Where the test split may be.
        devices: Folder of this host for what is built and downloaded for devices.
        progress: Where to show progress.
        layers: Whether each model says what each of its layers costs.

    Raises:
        ConfigError: Nothing is there, or two files can't be compared.
        VerificationError: A bundle is not what was packed.
        StageError: No model can run there, or one of two to compare can't.
        DeviceError: The device went away.
    """
    place = choose(profile)
    with tempfile.TemporaryDirectory(prefix="mobilekd-bench-") as name:
        folder = Path(name)
        subject = _subject(paths, profile, cache, folder)
        _check_runnable(paths, subject.models, place)
        bench = Bench(profile, place, devices, folder, progress, layers=layers)
        report = bench.measure(Task(subject.models, subject.images, subject.labels, subject.trained))
    models = [{**row, "top1": subject.top1.get(row["deployment"])} for row in report.pop("rows")]
    compared = _compared(report["samples_ms"], models) if len(paths) == 2 else None
    head = {"schema": SCHEMA, "profile": profile.name, "mode": profile.benchmark.mode}
    images = {"images_from": subject.images_from, "images_note": subject.images_note}
    return {**head, **report, **images, "models": models, "comparison": compared}


def check_answers(document: dict[str, Any], profile: Profile) -> None:
    """Accept a measurement whose int8 models answer on the device as they do here.

    Raises:
        VerificationError: One does not; it is named.
    """
    if wrong := refusals(document["models"], profile.tolerance.agreement, document["ran_on"]):
        raise VerificationError(
            "\n".join(wrong), hint="that model is not what was proved on this host: don't ship it there", code="MKD-702"
        )


def _check_runnable(paths: Sequence[Path], models: Sequence[Measured], place: Place) -> None:
    """Refuse models of which none, or not both of a pair, can be measured there."""
    lacks = {model.name: lack for model in models if (lack := lack_of(model, place))}
    if len(lacks) == len(models) or (lacks and len(paths) == 2):
        notes = "; ".join(f"{name}: {lack}" for name, lack in lacks.items())
        raise StageError(
            f"{' and '.join(map(str, paths))} can't be measured on {place.told}: {notes}",
            hint="measure on this host: --on host",
            code="MKD-431",
        )


def _compared(samples_ms: dict[str, list[list[float]]], models: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return how the second model compares with the first: by time, or by instructions on an emulator."""
    first, second = models
    names = (first["deployment"], second["deployment"])
    if first.get("guest_instructions"):
        return compare_counts((first, second))
    found = compare(samples_ms[names[0]], samples_ms[names[1]], names=names)
    return {**found.to_json(), "told": found.reason}


def _subject(paths: Sequence[Path], profile: Profile, cache: Cache, folder: Path) -> Subject:
    @functools.cache  # a bundle that is named twice is opened, checked and unpacked once
    def of_bundle(path: Path) -> Subject:
        return _of_bundle(path, profile, cache, Path(tempfile.mkdtemp(dir=folder)))

    subjects = [_one(path, of_bundle) for path in paths]
    if len(subjects) == 1:
        return subjects[0]
    first, second = subjects
    for path, one in zip(paths, subjects, strict=True):
        if len(one.models) != 1:
            names = ", ".join(model.name for model in one.models)
            raise ConfigError(
                f"{path} holds {len(one.models)} models ({names}), and two files are compared model by model",
                hint=f"give a model file, or BUNDLE:DEPLOYMENT, as {path}:{one.models[0].name}",
                code="MKD-271",
            )
    if first.images.shape[1:] != second.images.shape[1:]:
        raise ConfigError(
            f"{paths[0]} takes {list(first.images.shape[1:])}, {paths[1]} takes {list(second.images.shape[1:])}",
            hint="models of one input can be compared",
            code="MKD-271",
        )
    named = tuple(
        replace(model, name=f"{letter}: {model.name}")
        for letter, model in zip("AB", (first.models[0], second.models[0]), strict=True)
    )
    top1 = {model.name: one.top1.get(one.models[0].name) for model, one in zip(named, (first, second), strict=True)}
    return Subject(named, first.images, first.labels, first.images_from, top1, images_note=first.images_note)


def _one(path: Path, of_bundle: Callable[[Path], Subject]) -> Subject:
    if path.suffix in _LONE_MODELS and path.is_file():
        return _lone(path)
    bundle, colon, deployment = str(path).rpartition(":")
    if path.exists() or not colon:
        bundle, deployment = str(path), ""
    _check_there(Path(bundle))
    subject = of_bundle(Path(bundle))
    if not deployment:
        return subject
    chosen = tuple(model for model in subject.models if model.name == deployment)
    if not chosen:
        known = ", ".join(model.name for model in subject.models)
        raise ConfigError(f"{bundle} has no model {deployment!r}", hint=f"its models: {known}", code="MKD-270")
    return replace(subject, models=chosen)


def _check_there(path: Path) -> None:
    """Refuse what is no file and no folder of a bundle, before anything else is said of it."""
    from mobilekd.release.manifest import MANIFEST

    if not path.exists():
        raise ConfigError(f"{path}: no such file", hint=_SUBJECTS, code="MKD-270")
    if path.is_file() and path.suffix != ".zip" and not zipfile.is_zipfile(path):
        raise ConfigError(f"{path} is neither a bundle nor a model", hint=_SUBJECTS, code="MKD-273")
    if path.is_dir() and not (path / MANIFEST).is_file():
        inside = path / "bundle"
        there = (
            inside if (inside / MANIFEST).is_file() else "the .mobilekd.zip of a build, or the folder `bundle` in it"
        )
        raise ConfigError(
            f"{path} is a folder without {MANIFEST}, so it is no bundle", hint=f"give {there}", code="MKD-270"
        )


def _of_bundle(path: Path, profile: Profile, cache: Cache, folder: Path) -> Subject:
    import numpy as np

    from mobilekd.preprocessing import normalize
    from mobilekd.release.bundle import unpack_models

    unpacked = unpack_models(path, folder)
    count = max(1, profile.device.images)
    found = find_test_split(unpacked.dataset, cache)
    if found is None:
        note = (
            f"the test split of {unpacked.dataset.name} is not in {cache.root}, so the bundle's one reference image is "
            f"compared; mobilekd build --pipeline {unpacked.copies.manifest.pipeline} --until data puts it there"
        )
        reference = np.load(unpacked.input)
        return Subject(unpacked.models, reference, None, "reference image", unpacked.top1, images_note=note)
    rule: Preprocessing = unpacked.preprocessing
    images, labels = (np.load(found / f"test_{what}.npy", mmap_mode="r") for what in ("images", "labels"))
    return Subject(
        tuple(unpacked.models),
        normalize(np.array(images[:count]), rule.mean, rule.std),
        np.array(labels[:count]),
        f"test split of {unpacked.dataset.name}",
        unpacked.top1,
        find_trained(unpacked.copies, cache),
    )


def _lone(path: Path) -> Subject:
    import numpy as np

    from mobilekd.backend import Backend
    from mobilekd.plugins import BACKENDS

    backend: Backend = BACKENDS.load(_LONE_MODELS[path.suffix])()
    if lack := backend.missing():
        raise MissingToolError(lack, code="MKD-302")
    try:
        facts = backend.describe(path)
    except StageError as refusal:  # no stage of ours made the file: it is the user's to mend
        raise ConfigError(
            refusal.message, hint=refusal.hint or f"is {path.suffix} what the file is?", code="MKD-273"
        ) from refusal
    batch, *sides = facts.input.shape
    if batch != 1 or len(sides) != 3:
        raise ConfigError(
            f"{path} takes {list(facts.input.shape)}, and one image is measured at a time",
            hint="export it for one image: [1, channels, height, width] or [1, height, width, channels]",
            code="MKD-271",
        )
    channels_first = sides if facts.input.layout == "NCHW" else [sides[-1], *sides[:-1]]
    image = np.random.default_rng(0).normal(size=(1, *channels_first)).astype(np.float32)
    note = "a model file alone names no images: one of noise is compared; a bundle names its test split"
    return Subject((Measured(path.name, path, facts),), image, None, "noise", {}, images_note=note)
