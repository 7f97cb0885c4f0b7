"""What the gates of a release look at, of a finished bundle or of the results of a build."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mobilekd.errors import ConfigError, VerificationError
from mobilekd.profile import Budget
from mobilekd.release.answers import Answers, carries_answers, read_answers
from mobilekd.release.bundle import open_checked
from mobilekd.release.evidence import Latency, ParityRow
from mobilekd.release.files import BundleFiles
from mobilekd.release.manifest import (
    LATENCY,
    MANIFEST,
    MEASUREMENTS_MANIFEST,
    Licence,
    Manifest,
    manifest_text,
)

Row = Mapping[str, Any]

MAX_LATENCY_BYTES = 256 << 20  # 60 s of runs of 0.1 ms are 12 MB of samples a model
_ROLES = {"Teacher": "teacher", "Student": "student"}


@dataclass(frozen=True, slots=True)
class Facts:
    """What was proved and measured of the models that ship; what is not known is None or left out.

    Attributes:
        name: The bundle, as the user named it.
        parity: Rows of parity.json; of each deployment, the kernels that apps use by default come first.
        latency: Rows of latency.json, each with `on_target`, `place` and `ran_on` of the whole.
        top1: Of the trained networks by role ("teacher", "student"), as a fraction.
        test_files: sha256 of the files of the test split, by name.
    """

    name: str
    parity: Sequence[Row]
    latency: Sequence[Row]
    top1: Mapping[str, float] = field(default_factory=dict)
    licences: tuple[Licence, ...] | None = None
    bundle_bytes: int | None = None
    answers: Answers | None = None
    labels: tuple[str, ...] = ()
    test_files: Mapping[str, str] = field(default_factory=dict)

    @property
    def deployments(self) -> tuple[str, ...]:
        """Return the names of the models that ship."""
        rows = (*self.parity, *self.latency)
        return tuple(dict.fromkeys(str(row["deployment"]) for row in rows if row.get("ships", True)))

    def parity_of(self, deployment: str) -> list[Row]:
        """Return the rows of one deployment, that of its default kernels first."""
        return [row for row in self.parity if row["deployment"] == deployment]

    def latency_of(self, deployment: str) -> Row:
        """Return what was measured of one deployment; empty when nothing was."""
        return next((row for row in self.latency if row["deployment"] == deployment), {})


@dataclass(frozen=True, slots=True)
class Finished:
    """A finished bundle: its digest, the budgets that it was built under, and what the gates look at."""

    digest: str
    profile: str
    budget: Budget
    facts: Facts


def read_finished(path: Path) -> Finished:
    """Return what the gates look at, of a bundle whose every digest was checked first.

    Raises:
        ConfigError: Nothing is there.
        VerificationError: The bundle is not what was packed, or its tables are not of the promised form.
    """
    files, manifest, measurements, digest = open_checked(path)
    own = (len(manifest_text(manifest).encode()), len(manifest_text(measurements).encode()))
    facts = Facts(
        name=str(path),
        parity=_parity_rows(files, manifest),
        latency=_latency_rows(files),
        top1={_ROLES[one.role]: one.top1_test for one in manifest.accuracy if one.role in _ROLES},
        licences=manifest.licences,
        bundle_bytes=sum(one.bytes for one in (*manifest.files, *measurements.files)) + sum(own),
        answers=read_answers(files, manifest) if carries_answers(manifest) else None,
        labels=manifest.labels,
        test_files=manifest.dataset.test_files,
    )
    return Finished(digest, manifest.profile.name, manifest.profile.budget, facts)


def placed_rows(latency: Latency, rows: Sequence[Row]) -> list[Row]:
    """Return rows of latency.json, each with where it was measured."""
    where = {"on_target": latency.on_target, "place": latency.place, "ran_on": latency.ran_on}
    return [{**where, **row} for row in rows]


def check_comparable(new: Facts, old: Facts) -> None:
    """Refuse two bundles whose answers can't be compared image by image.

    Raises:
        ConfigError: They know other classes, or were tested on other images.
    """
    if new.labels != old.labels:
        odd = next((pair for pair in zip(old.labels, new.labels, strict=False) if pair[0] != pair[1]), None)
        first = f"; class {old.labels.index(odd[0])} is {odd[0]!r} there and {odd[1]!r} here" if odd else ""
        raise ConfigError(
            f"{old.name} has {len(old.labels)} classes, {new.name} has {len(new.labels)}{first}: "
            "their answers can't be compared",
            hint="give a release with the same classes, or leave --against out",
        )
    is_other_set = bool(old.test_files and new.test_files) and old.test_files != new.test_files
    if is_other_set or _other_labels(new.answers, old.answers):
        raise ConfigError(
            f"{old.name} was tested on other images than {new.name}: their answers can't be compared",
            hint="build both with the same data, or leave --against out",
        )


def _other_labels(new: Answers | None, old: Answers | None) -> bool:
    return bool(new and old) and new.labels.tolist() != old.labels.tolist()  # type: ignore[union-attr]


def _parity_rows(files: BundleFiles, manifest: Manifest) -> list[Row]:
    try:
        return [ParityRow.model_validate_json(json.dumps(row)).model_dump() for row in manifest.parity]
    except ValidationError as cause:
        raise VerificationError(f"{files.path}: {MANIFEST}: its parity table does not read: {cause}") from cause


def _latency_rows(files: BundleFiles) -> list[Row]:
    try:
        latency = Latency.model_validate_json(files.read(LATENCY, limit_bytes=MAX_LATENCY_BYTES))
    except ValidationError as cause:
        raise VerificationError(
            f"{files.path}: {LATENCY}: does not read: {cause}", hint=f"{MEASUREMENTS_MANIFEST} is of the same build"
        ) from cause
    return placed_rows(latency, [row.model_dump() for row in latency.rows])
