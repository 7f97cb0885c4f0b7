"""Reading a bundle: what it says, and whether it still is what was built."""

import hashlib
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mobilekd.backend import Float32
from mobilekd.errors import VerificationError
from mobilekd.measurement import Measured
from mobilekd.release.files import BundleFiles, open_bundle
from mobilekd.release.manifest import (
    LATENCY,
    MANIFEST,
    MAX_MANIFEST_BYTES,
    MEASUREMENTS_MANIFEST,
    DatasetEntry,
    FileEntry,
    Manifest,
    Measurements,
    ModelEntry,
    Preprocessing,
    Reference,
    parse_manifest,
    parse_measurements,
)
from mobilekd.release.reference import HOST, Runtime, error_steps

__all__ = ["Rerun", "Unpacked", "VerifyReport", "inspect", "open_bundle", "read_manifests", "unpack_models", "verify"]


@dataclass(frozen=True, slots=True)
class Rerun:
    """One model, run again on the reference input: its largest logit error in output steps, and the largest allowed."""

    deployment: str
    max_error_steps: float
    allowed_steps: float

    @property
    def ok(self) -> bool:
        """Return whether the error is rounding."""
        return self.max_error_steps <= self.allowed_steps


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What was checked of a bundle.

    Attributes:
        digest: The digest of the bundle: sha256 of manifest.json.
        files: Files whose digest was checked; all of the bundle.
        reruns: Models that answered the reference input as they did where they were built.
        not_run: Models that were not run, as (deployment, reason).
    """

    digest: str
    files: tuple[str, ...]
    reruns: tuple[Rerun, ...]
    not_run: tuple[tuple[str, str], ...]

    def to_json(self) -> dict[str, object]:
        """Return plain JSON values."""
        reruns = [
            {"deployment": one.deployment, "max_error_steps": one.max_error_steps, "ok": one.ok} for one in self.reruns
        ]
        not_run = [{"deployment": name, "reason": reason} for name, reason in self.not_run]
        return {"digest": self.digest, "files": list(self.files), "reruns": reruns, "not_run": not_run}


def verify(path: Path, runtime: Runtime = HOST) -> VerifyReport:
    """Check every file of a bundle against its digest, then run every model on the reference input.

    Nothing but the two manifests is parsed before all digests hold. A model
    that can't run here is reported as not run, never as passed.

    Args:
        path: A bundle.zip or a bundle folder.
        runtime: What runs the models; the backends of this host unless given.

    Raises:
        ConfigError: Nothing is there.
        VerificationError: A file is missing, changed or too many (named), or a model answers otherwise (named).
    """
    files = open_bundle(path)
    manifest, measurements, digest = read_manifests(files)
    _check_inventory(files, (*manifest.files, *measurements.files))
    with tempfile.TemporaryDirectory(prefix="mobilekd-verify-") as scratch:
        reruns, not_run = _rerun_all(_Copies(files, manifest, Path(scratch)), runtime)
    if drifted := [one for one in reruns if not one.ok]:
        told = "; ".join(
            f"{one.deployment}: logits are {one.max_error_steps:.3g} steps off, allowed {one.allowed_steps:.3g}"
            for one in drifted
        )
        raise VerificationError(
            f"{path}: {told}",
            hint="the files are intact: compare the runtime versions here with those in manifest.json",
        )
    return VerifyReport(digest, tuple(sorted(files.names)), reruns, not_run)


def inspect(path: Path) -> dict[str, Any]:
    """Return what a bundle says of itself, as JSON values. Digests of the files are not checked: `verify` does that.

    Raises:
        ConfigError: Nothing is there.
        VerificationError: It is not a bundle.
    """
    files = open_bundle(path)
    manifest, measurements, digest = read_manifests(files)
    document = manifest.model_dump(mode="json")
    sizes = {entry.path: entry.bytes for entry in manifest.files}
    summary = {key: document[key] for key in _SHOWN}
    models = [{**model, "bytes": sizes[model["file"]]} for model in document["models"]]
    measured = measurements.model_dump(mode="json", include={"host", "ran_on", "on_target", "measured"})
    return {
        **summary,
        "digest": digest,
        "models": models,
        "files": document["files"],
        "over_budget": [*manifest.over_budget, *measurements.over_budget],
        "not_measured": [*manifest.not_measured, *measurements.not_measured],
        "measurements": {**measured, "digest": measurements.digest, "file": LATENCY},
    }


@dataclass(frozen=True, slots=True)
class Unpacked:
    """What `mobilekd bench` needs of a bundle.

    Attributes:
        models: Copies of them.
        input: File of the reference input, float32 [1, channels, height, width].
        top1: By deployment, on the test split under the kernels that apps use by default; None where it was not run.
    """

    models: tuple[Measured, ...]
    input: Path
    top1: dict[str, float | None]
    dataset: DatasetEntry
    preprocessing: Preprocessing


def unpack_models(path: Path, folder: Path) -> Unpacked:
    """Copy the models of a bundle out, to measure them.

    Every file of the bundle is checked against its digest first.

    Args:
        path: A bundle.zip or a bundle folder.
        folder: An existing directory to copy into.

    Raises:
        ConfigError: Nothing is there.
        VerificationError: The bundle is not what was packed.
    """
    files = open_bundle(path)
    manifest, measurements, _ = read_manifests(files)
    _check_inventory(files, (*manifest.files, *measurements.files))
    copies = _Copies(files, manifest, folder)
    models = tuple(Measured(model.deployment, copies.copy(model.file), model.facts()) for model in manifest.models)
    top1: dict[str, float | None] = {}
    for row in manifest.parity:
        top1.setdefault(row["deployment"], row.get("top1_deployed"))
    return Unpacked(models, copies.copy(manifest.reference.input), top1, manifest.dataset, manifest.preprocessing)


def checked(path: Path) -> tuple[BundleFiles, Manifest, str]:
    """Return a bundle's files, its manifest and its digest, after checking every file against its own.

    Raises:
        ConfigError: Nothing is there.
        VerificationError: The bundle is not what was packed.
    """
    files = open_bundle(path)
    manifest, measurements, digest = read_manifests(files)
    _check_inventory(files, (*manifest.files, *measurements.files))
    return files, manifest, digest


_SHOWN = ("mobilekd", "pipeline", "profile", "dataset", "labels", "preprocessing", "accuracy", "parity", "licences")


def read_manifests(files: BundleFiles) -> tuple[Manifest, Measurements, str]:
    """Return both manifests and the bundle's digest, each checked against the digest that covers it.

    Raises:
        VerificationError: A manifest is missing, was changed, or is of another version.
    """
    files.require(MANIFEST)
    measured = files.read(MEASUREMENTS_MANIFEST, limit_bytes=MAX_MANIFEST_BYTES)
    measurements = parse_measurements(measured, f"{files.path}: {MEASUREMENTS_MANIFEST}")
    content = files.read(MANIFEST, limit_bytes=MAX_MANIFEST_BYTES)
    digest = hashlib.sha256(content).hexdigest()
    if digest != measurements.bundle:
        raise VerificationError(
            f"{files.path}: {MANIFEST}: its digest is {digest}, measured was {measurements.bundle}",
            hint="the manifest was changed, or the measurements belong to another bundle",
        )
    return parse_manifest(content, f"{files.path}: {MANIFEST}"), measurements, digest


def _check_inventory(files: BundleFiles, entries: Iterable[FileEntry]) -> None:
    """Refuse missing and changed files, then files that no manifest lists."""
    listed = {MANIFEST, MEASUREMENTS_MANIFEST}
    for entry in entries:
        files.check(entry.path, size=entry.bytes, sha256=entry.sha256)
        listed.add(entry.path)
    if extra := sorted(files.names - listed):
        raise VerificationError(
            f"{files.path}: {extra[0]}: not listed in a manifest", hint="it was added after the bundle was built"
        )


@dataclass(frozen=True, slots=True)
class _Copies:
    """Files of a bundle, copied out; each copy is digested after it was made."""

    files: BundleFiles
    manifest: Manifest
    folder: Path

    def copy(self, name: str) -> Path:
        """Return the copy of a file."""
        copy = self.folder / name
        copy.parent.mkdir(exist_ok=True)
        sha256 = next(entry.sha256 for entry in self.manifest.files if entry.path == name)
        self.files.copy(name, copy, sha256=sha256)
        return copy

    def array(self, name: str) -> Float32:
        """Return a float32 array; mapped first, so that its header can't ask for more memory than the file has."""
        try:
            array = np.lib.format.open_memmap(self.copy(name), mode="r")
        except (ValueError, OverflowError) as cause:
            raise VerificationError(f"{self.files.path}: {name}: not an array of numbers: {cause}") from cause
        if array.dtype != np.float32:
            raise VerificationError(f"{self.files.path}: {name}: holds {array.dtype}, expected float32")
        return np.array(array, dtype=np.float32)


def _rerun_all(copies: _Copies, runtime: Runtime) -> tuple[tuple[Rerun, ...], tuple[tuple[str, str], ...]]:
    """Run the models of a bundle on its reference input; return what was run, and what was not with the reason."""
    image = copies.array(copies.manifest.reference.input)
    reruns: list[Rerun] = []
    not_run: list[tuple[str, str]] = []
    for model in copies.manifest.models:
        if model.reference is None:
            not_run.append((model.deployment, model.note or "built, not run"))
        elif reason := runtime.missing(model.options.backend):
            not_run.append((model.deployment, reason))
        else:
            reruns.append(_rerun(copies, runtime, model, model.reference, image))
    return tuple(reruns), tuple(not_run)


def _rerun(copies: _Copies, runtime: Runtime, model: ModelEntry, reference: Reference, image: Float32) -> Rerun:
    backend, facts = model.options.backend, model.facts()
    expected = copies.array(reference.file)
    got = runtime.logits(backend, copies.copy(model.file), facts, image, copies.folder)
    if got.shape != expected.shape:
        raise VerificationError(
            f"{copies.files.path}: {model.deployment}: gives logits of shape {list(got.shape)}, "
            f"{reference.file} has {list(expected.shape)}"
        )
    error = error_steps(got, expected, reference.logit_step)
    return Rerun(model.deployment, error, runtime.parity_steps(backend))
