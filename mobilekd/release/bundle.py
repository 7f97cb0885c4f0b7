"""Reading a bundle: what it says, and whether it still is what was built."""

import hashlib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
    Preprocessing,
    parse_manifest,
    parse_measurements,
)
from mobilekd.release.reference import HOST, Runtime
from mobilekd.release.reruns import Copies, Rerun, rerun_all
from mobilekd.release.signature import SignatureReport, Trust, check_signature, check_subjects

__all__ = [
    "Rerun",
    "Unpacked",
    "VerifyReport",
    "inspect",
    "open_bundle",
    "open_checked",
    "read_manifests",
    "unpack",
    "unpack_models",
    "verify",
]


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What was checked of a bundle.

    Attributes:
        digest: The digest of the bundle: sha256 of manifest.json.
        files: Files whose digest was checked; all of the bundle.
        reruns: Models that answered the reference input as they did where they were built.
        not_run: Models that were not run, as (deployment, reason).
        signature: Who signed it, and whether that was checked.
    """

    digest: str
    files: tuple[str, ...]
    reruns: tuple[Rerun, ...]
    not_run: tuple[tuple[str, str], ...]
    signature: SignatureReport

    def to_json(self) -> dict[str, object]:
        """Return plain JSON values."""
        reruns = [
            {"deployment": one.deployment, "max_error_steps": one.max_error_steps, "ok": one.ok} for one in self.reruns
        ]
        not_run = [{"deployment": name, "reason": reason} for name, reason in self.not_run]
        signature = self.signature.to_json()
        files = list(self.files)
        return {
            "digest": self.digest,
            "signature": signature,
            "files": files,
            "reruns": reruns,
            "not_run": not_run,
        }


def verify(path: Path, runtime: Runtime = HOST, trust: Trust = Trust()) -> VerifyReport:  # noqa: B008 - frozen
    """Check who signed a bundle, every file against its digest, then run every model on the reference input.

    Nothing is parsed before the signature holds, and nothing but the two
    manifests before all digests hold. A model that can't run here is reported
    as not run, never as passed.

    Args:
        path: A bundle.zip or a bundle folder.
        runtime: What runs the models; the backends of this host unless given.
        trust: Whose signature is demanded; unless given, one is reported and not checked.

    Raises:
        ConfigError: Nothing is there, or a key can't be read.
        VerificationError: It is not signed by a trusted key, a file is missing, changed or too many (named), or a
            model answers otherwise (named).
    """
    signed = check_signature(path, trust)
    files = open_bundle(path)
    if signed.files is not None:
        check_subjects(files, signed.files)
    manifest, digest = checked_manifest(files)
    with tempfile.TemporaryDirectory(prefix="mobilekd-verify-") as scratch:
        reruns, not_run = rerun_all(Copies(files, manifest, Path(scratch)), runtime)
    if drifted := [one for one in reruns if not one.ok]:
        told = "; ".join(
            f"{one.deployment}: logits are {one.max_error_steps:.3g} steps off, allowed {one.allowed_steps:.3g}"
            for one in drifted
        )
        raise VerificationError(
            f"{path}: {told}",
            hint="the files are intact: compare the runtime versions here with those in manifest.json",
            code="MKD-707",
        )
    return VerifyReport(digest, tuple(sorted(files.names)), reruns, not_run, signed.report)


def checked_manifest(files: BundleFiles) -> tuple[Manifest, str]:
    """Return the manifest of a bundle and the bundle's digest; every file has the digest that a manifest gives it.

    Raises:
        VerificationError: A file is missing, changed or too many; names it.
    """
    manifest, _, digest = _checked_manifests(files)
    return manifest, digest


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
        copies: Takes more files out of the bundle, which was checked as a whole.
    """

    models: tuple[Measured, ...]
    input: Path
    top1: dict[str, float | None]
    dataset: DatasetEntry
    preprocessing: Preprocessing
    copies: Copies


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
    files, manifest, _, _ = open_checked(path)
    copies = Copies(files, manifest, folder)
    models = tuple(Measured(model.deployment, copies.copy(model.file), model.facts()) for model in manifest.models)
    top1: dict[str, float | None] = {}
    for row in manifest.parity:
        top1.setdefault(row["deployment"], row.get("top1_deployed"))
    image = copies.copy(manifest.reference.input)
    return Unpacked(models, image, top1, manifest.dataset, manifest.preprocessing, copies)


def unpack(path: Path, folder: Path) -> tuple[Manifest, str]:
    """Copy every file outside measurements/ out; return the manifest and the digest of the bundle.

    Args:
        path: A bundle.zip or a bundle folder; every digest in it is checked first.
        folder: An existing directory to copy into.

    Raises:
        ConfigError: Nothing is there.
        VerificationError: The bundle is not what was packed.
    """
    files, manifest, _, digest = open_checked(path)
    copies = Copies(files, manifest, folder)
    for entry in manifest.files:
        copies.copy(entry.path)
    return manifest, digest


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
            code="MKD-704",
        )
    return parse_manifest(content, f"{files.path}: {MANIFEST}"), measurements, digest


def open_checked(path: Path) -> tuple[BundleFiles, Manifest, Measurements, str]:
    """Return the files of a bundle, both manifests and its digest, after every file was checked against its digest.

    Raises:
        ConfigError: Nothing is there.
        VerificationError: The bundle is not what was packed.
    """
    files = open_bundle(path)
    return files, *_checked_manifests(files)


def _checked_manifests(files: BundleFiles) -> tuple[Manifest, Measurements, str]:
    manifest, measurements, digest = read_manifests(files)
    _check_inventory(files, (*manifest.files, *measurements.files))
    return manifest, measurements, digest


def _check_inventory(files: BundleFiles, entries: Sequence[FileEntry]) -> None:
    """Refuse missing and changed files, then files that no manifest lists; sizes before any file is read."""
    for entry in entries:
        files.check_size(entry.path, entry.bytes)
    if extra := sorted(files.names - {MANIFEST, MEASUREMENTS_MANIFEST} - {entry.path for entry in entries}):
        raise VerificationError(
            f"{files.path}: {extra[0]}: not listed in a manifest",
            hint="it was added after the bundle was built",
            code="MKD-704",
        )
    for entry in entries:
        files.check(entry.path, size=entry.bytes, sha256=entry.sha256)
