"""The two manifests of a bundle: what it holds, and what was measured.

manifest.json (schema mobilekd.bundle/1) lists every file outside measurements/
with its sha256; the sha256 of its own bytes is the digest of the bundle.
measurements/manifest.json (schema mobilekd.measurements/1) lists the files
beside it, carries the digest of the bundle that was measured, and its own: the
sha256 of its canonical JSON with an empty `digest`. So every byte of a bundle
stands under a digest that the bundle carries.

Both are canonical JSON, and are read only when they are.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mobilekd.artifacts import canonical_json, digest_file
from mobilekd.backend import DeployedFacts, TensorFacts
from mobilekd.errors import VerificationError
from mobilekd.profile import Budget, Deployment, Target, Tolerance
from mobilekd.release.strict_json import parse_canonical

MANIFEST = "manifest.json"
MEASUREMENTS = "measurements"
MEASUREMENTS_MANIFEST = "measurements/manifest.json"
LATENCY = "measurements/latency.json"
REPORT = "report.html"
DRIFT = "drift.json"
MEASURED_REPORT = "measurements/report.html"
MAX_MANIFEST_BYTES = 2 << 20
"""4096 files with the longest names take 1.5 MB."""
_MAX_PLACE_CHARS = 80


class _Record(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, serialize_by_alias=True, validate_by_name=True
    )


def _is_empty(value: object) -> bool:
    """Return whether a key is left out: one that older bundles lack must not change their canonical text."""
    return not value


class FileEntry(_Record):
    """One file of the bundle."""

    path: str
    bytes: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class Preprocessing(_Record):
    """How an app makes the float32 input of a model from an image: resize, then (pixel / 255 - mean) / std."""

    channel_order: Literal["RGB", "grey"]
    value_range: tuple[float, float]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: str
    height: int
    width: int
    formula: str


class Accuracy(_Record):
    """Top-1 of one trained network on the test split, as a fraction."""

    role: str
    network: str
    parameters: int | None
    top1_test: float


class Reference(_Record):
    """What a model must answer to the reference input.

    `logit_step` is the quantization step of the logits: errors are counted in it.
    """

    file: str
    logit_step: float = Field(gt=0)


class ModelEntry(_Record):
    """One model file: how to load, feed and read it.

    `reference` is null for a model that can't run where it was built.
    """

    deployment: str
    options: Deployment
    file: str
    runnable: bool
    input: TensorFacts
    output: TensorFacts
    float_ops: tuple[str, ...]
    other_float_ops: tuple[str, ...]
    int8_tensors: int
    note: str
    build_command: str
    tools: dict[str, str]
    reference: Reference | None
    answers: str | None = Field(default=None, exclude_if=_is_empty)
    """File with its answer to every image of the test split; null for a model that did not run."""

    def facts(self) -> DeployedFacts:
        """Return what a backend needs to run the model."""
        return DeployedFacts(
            deployment=self.options.model_dump(mode="json"),
            file=self.file.rpartition("/")[2],
            runnable=self.runnable,
            input=self.input,
            output=self.output,
            float_ops=self.float_ops,
            other_float_ops=self.other_float_ops,
            int8_tensors=self.int8_tensors,
            tools=self.tools,
            note=self.note,
            build_command=self.build_command,
        )


class ReferenceInput(_Record):
    """One image of the test split: as pixels (uint8 [h, w, c]) and as model input (float32 [1, c, h, w])."""

    image: str
    input: str
    test_index: int
    label: str


class ProfileCard(_Record):
    """What the bundle was built for."""

    name: str
    title: str
    target: Target
    tolerance: Tolerance
    budget: Budget


class DatasetEntry(_Record):
    """What the models were trained and tested on."""

    name: str
    source: str
    splits: dict[str, int]
    test_files: dict[str, str] = {}
    """sha256 of the files of the test split, by name: where `mobilekd bench` finds it in the cache."""


class Licence(_Record):
    """The licence of one thing in the bundle, or that a model in it needs."""

    covers: str
    licence: str


class Manifest(_Record):
    """manifest.json."""

    form: Literal["mobilekd.bundle/1"] = Field(alias="schema")
    mobilekd: str
    pipeline: str
    profile: ProfileCard
    dataset: DatasetEntry
    labels: tuple[str, ...]
    preprocessing: Preprocessing
    accuracy: tuple[Accuracy, ...]
    models: tuple[ModelEntry, ...]
    reference: ReferenceInput
    parity_images: int
    parity: tuple[dict[str, Any], ...]
    over_budget: tuple[str, ...]
    not_measured: tuple[str, ...]
    licences: tuple[Licence, ...]
    answers: dict[str, str] = Field(default={}, exclude_if=_is_empty)
    """Files with the labels and the answers of teacher, student and quantized (release/answers.py)."""
    files: tuple[FileEntry, ...]


class Measurements(_Record):
    """measurements/manifest.json."""

    form: Literal["mobilekd.measurements/1"] = Field(alias="schema")
    bundle: str
    digest: str
    host: str
    ran_on: str
    on_target: bool
    measured: str
    over_budget: tuple[str, ...]
    not_measured: tuple[str, ...]
    files: tuple[FileEntry, ...]


_M = TypeVar("_M", Manifest, Measurements)


def manifest_text(manifest: Manifest | Measurements) -> str:
    """Return the text of a manifest file."""
    return canonical_json(manifest.model_dump(mode="json"))


def digest_text(text: str) -> str:
    """Return the sha256 of a text in UTF-8, as 64 hex digits."""
    return hashlib.sha256(text.encode()).hexdigest()


def sealed(measurements: Measurements) -> Measurements:
    """Return the measurements with their own digest filled in."""
    unsealed = measurements.model_copy(update={"digest": ""})
    return measurements.model_copy(update={"digest": digest_text(manifest_text(unsealed))})


def file_entries(folder: Path, names: Iterable[str]) -> tuple[FileEntry, ...]:
    """Return what stands in a manifest for files of a folder, in byte order of their names."""
    ordered = sorted(names, key=str.encode)
    return tuple(
        FileEntry(path=name, bytes=(folder / name).stat().st_size, sha256=digest_file(folder / name))
        for name in ordered
    )


def parse_manifest(content: bytes, where: str) -> Manifest:
    """Return manifest.json, read.

    Raises:
        VerificationError: It is of another schema, or not canonical.
    """
    manifest = _parse(Manifest, content, where)
    listed = {entry.path for entry in manifest.files}
    pointed = [model.file for model in manifest.models]
    pointed += [model.reference.file for model in manifest.models if model.reference]
    pointed += [model.answers for model in manifest.models if model.answers]
    pointed += [manifest.reference.image, manifest.reference.input, *manifest.answers.values()]
    if lost := [name for name in pointed if name not in listed]:
        raise VerificationError(f"{where}: points at {lost[0]!r}, which is not among its files", code="MKD-706")
    _check_listed([entry.path for entry in manifest.files], where)
    if len({model.deployment for model in manifest.models}) < len(manifest.models):
        raise VerificationError(f"{where}: two models have one name", code="MKD-706")
    if inside := [name for name in listed if name.lower().startswith((f"{MEASUREMENTS}/", MANIFEST))]:
        raise VerificationError(
            f"{where}: lists {inside[0]!r}, which is not a file of its part of the bundle", code="MKD-706"
        )
    return manifest


def parse_measurements(content: bytes, where: str) -> Measurements:
    """Return measurements/manifest.json, read, its own digest checked.

    Raises:
        VerificationError: It is of another schema, not canonical, or was changed.
    """
    measurements = _parse(Measurements, content, where)
    if sealed(measurements).digest != measurements.digest:
        raise VerificationError(f"{where}: was changed: its content does not match its own digest")
    _check_listed([entry.path for entry in measurements.files], where)
    if outside := [one.path for one in measurements.files if not one.path.startswith(f"{MEASUREMENTS}/")]:
        raise VerificationError(f"{where}: lists {outside[0]!r}, which is not below {MEASUREMENTS}/", code="MKD-706")
    return measurements


def _check_listed(names: list[str], where: str) -> None:
    if names != sorted(set(names), key=str.encode):
        raise VerificationError(f"{where}: lists a file twice, or its files out of order")


def _check_keys(kind: type[BaseModel], content: bytes, where: str) -> None:
    """Refuse other keys than a manifest has: pydantic would copy the whole document for each one that is missing."""
    document = parse_canonical(content, where)
    if not isinstance(document, dict):
        raise VerificationError(f"{where}: not a JSON object", hint=_DAMAGED)
    fields = {field.alias or name: field.is_required() for name, field in kind.model_fields.items()}
    if missing := [name for name, required in fields.items() if required and name not in document]:
        raise VerificationError(f"{where}: {missing[0]}: missing", hint=_DAMAGED)
    if extra := sorted(document.keys() - fields.keys()):
        raise VerificationError(f"{where}: {extra[0][:_MAX_PLACE_CHARS]!r}: no key of a manifest", hint=_DAMAGED)


def _parse(kind: type[_M], content: bytes, where: str) -> _M:
    _check_keys(kind, content, where)
    try:
        manifest = kind.model_validate_json(content)
        is_canonical = manifest_text(manifest).encode() == content
    except ValidationError as cause:
        first = cause.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))[:_MAX_PLACE_CHARS] or "the text"
        raise VerificationError(f"{where}: {place}: {first['msg']}", hint=_DAMAGED) from cause
    except ValueError as cause:  # not-a-number in a parity row: JSON has no word for it
        raise VerificationError(f"{where}: {cause}", code="MKD-706") from cause
    if not is_canonical:
        raise VerificationError(f"{where}: not in the canonical form that mobilekd writes", code="MKD-706")
    return manifest


_DAMAGED = "the file is damaged, or of another version of mobilekd"
