"""What a bundle recorded of parity: the table, and the walk through every int8 model tensor by tensor."""

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mobilekd.artifacts import write_json
from mobilekd.drift import Walk
from mobilekd.errors import ConfigError, VerificationError
from mobilekd.release.bundle import read_manifests
from mobilekd.release.files import open_bundle
from mobilekd.release.manifest import DRIFT

_MAX_DRIFT_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class DriftRecord:
    """How every int8 model of a bundle compares with the trained network, tensor by tensor.

    Attributes:
        images: How many images of the test split, from the first.
        walks: One for each deployment and kernel set that ran.
        not_walked: Deployments that did not run where the bundle was built.
    """

    images: int
    walks: tuple[Walk, ...]
    not_walked: tuple[str, ...]


class _Document(BaseModel):
    """drift.json."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    form: Literal["mobilekd.drift/1"] = Field(alias="schema")
    images: int
    walks: tuple[Walk, ...]


def write_drift(images: int, walks: tuple[Walk, ...], path: Path) -> None:
    """Write drift.json."""
    write_json(path, {"schema": "mobilekd.drift/1", "images": images, "walks": [asdict(one) for one in walks]})


def recorded_parity(path: Path) -> list[dict[str, Any]]:
    """Return the rows of the parity table that a bundle carries.

    Raises:
        ConfigError: Nothing is there.
        VerificationError: It is not a bundle.
    """
    manifest, _, _ = read_manifests(open_bundle(path))
    return list(manifest.parity)


def recorded_drift(path: Path) -> DriftRecord:
    """Return the walks that a bundle carries.

    Raises:
        ConfigError: Nothing is there, or the bundle has no walk; the hint is the command that makes one.
        VerificationError: It is not a bundle, or drift.json was changed.
    """
    files = open_bundle(path)
    manifest, _, _ = read_manifests(files)
    entry = next((one for one in manifest.files if one.path == DRIFT), None)
    if entry is None:
        raise ConfigError(
            f"{path} has no comparison tensor by tensor: it was built without, or no int8 model ran where it was built",
            hint=f"mobilekd build --profile {manifest.profile.name} --pipeline {manifest.pipeline} "
            "--set verify.drift_images=2",
            code="MKD-272",
        )
    content = files.read(DRIFT, limit_bytes=_MAX_DRIFT_BYTES)
    if hashlib.sha256(content).hexdigest() != entry.sha256:
        raise VerificationError(
            f"{path}: {DRIFT}: was changed after the bundle was built", hint="build it again", code="MKD-704"
        )
    try:
        document = _Document.model_validate_json(content)
    except ValidationError as cause:
        raise VerificationError(
            f"{path}: {DRIFT}: not a record of drift that this version reads: {cause}", code="MKD-706"
        ) from cause
    walked = {one.deployment for one in document.walks}
    int8 = dict.fromkeys(row["deployment"] for row in manifest.parity if row["precision"] == "int8")
    return DriftRecord(document.images, document.walks, tuple(name for name in int8 if name not in walked))
