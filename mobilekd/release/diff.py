"""What changed from one release to the next, for the people who decide on it.

Both bundles are checked against their digests first; nothing is run.
"""

import tempfile
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mobilekd.errors import VerificationError
from mobilekd.quant_table import QuantTable, load_table
from mobilekd.release.answers import carries_answers, read_answers
from mobilekd.release.bundle import open_checked
from mobilekd.release.diff_answers import AnswerChange, answer_changes, why_not_compared
from mobilekd.release.diff_app import Change, app_changes
from mobilekd.release.diff_cost import CostChange, OperatorChange, cost_changes, operator_changes
from mobilekd.release.diff_table import TableChange, table_change
from mobilekd.release.evidence import Latency
from mobilekd.release.files import BundleFiles
from mobilekd.release.gate_facts import MAX_LATENCY_BYTES
from mobilekd.release.manifest import LATENCY, DatasetEntry, Manifest

SCHEMA = "mobilekd.diff/1"
_TABLE = "quant_table.json"


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two releases."""

    path: str
    digest: str
    mobilekd: str
    pipeline: str
    profile: str
    files_bytes: int


@dataclass(frozen=True, slots=True)
class Diff:
    """Two releases.

    Attributes:
        app: What an app sees, the worst first.
        answers: Of every network and deployment that both have; empty when they can't be compared.
        not_compared: Why the answers can't be compared; empty when they were.
        licences_gone, licences_new: As "COVERS: LICENCE".
        dataset: What the images that flipped are part of, to find their pictures.
    """

    old: Side
    new: Side
    app: tuple[Change, ...]
    answers: tuple[AnswerChange, ...]
    not_compared: str
    costs: tuple[CostChange, ...]
    operators: tuple[OperatorChange, ...]
    table: TableChange
    licences_gone: tuple[str, ...]
    licences_new: tuple[str, ...]
    dataset: DatasetEntry

    @property
    def is_same(self) -> bool:
        """Return whether both are one release: equal digests cover every byte but the measurements."""
        return self.old.digest == self.new.digest

    def of_weight(self, weight: str) -> tuple[Change, ...]:
        """Return the changes of one weight."""
        return tuple(change for change in self.app if change.weight == weight)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        document = asdict(self)
        del document["dataset"]
        return {"schema": SCHEMA, "is_same": self.is_same, **document}


def diff(old: Path, new: Path) -> Diff:
    """Return what changed between two bundles.

    Raises:
        ConfigError: Nothing is there.
        VerificationError: One of them is not what was packed.
    """
    opened = (open_checked(old), open_checked(new))
    (old_files, was, _, old_digest), (new_files, now, _, new_digest) = opened
    answers = [read_answers(files, manifest) if carries_answers(manifest) else None for files, manifest, _, _ in opened]
    not_compared = why_not_compared(answers[0], answers[1]) or _other_images(was.dataset, now.dataset)
    latencies = (_latency(old_files), _latency(new_files))
    licences = [Counter(f"{one.covers}: {one.licence}" for one in one.licences) for one in (was, now)]
    return Diff(
        old=_side(old, was, old_digest),
        new=_side(new, now, new_digest),
        app=app_changes(was, now),
        answers=answer_changes(answers[0], answers[1]) if answers[0] and answers[1] and not not_compared else (),
        not_compared=not_compared,
        costs=cost_changes((was, now), latencies),
        operators=operator_changes(latencies),
        table=table_change(_table(old_files, was), _table(new_files, now)),
        licences_gone=tuple(licences[0] - licences[1]),
        licences_new=tuple(licences[1] - licences[0]),
        dataset=now.dataset,
    )


def _other_images(old: DatasetEntry, new: DatasetEntry) -> str:
    """Return that the test splits differ, where both are known: equal labels may stand beside other images."""
    is_other = bool(old.test_files and new.test_files) and old.test_files != new.test_files
    return "they were tested on other images of the same classes" if is_other else ""


def _side(path: Path, manifest: Manifest, digest: str) -> Side:
    total = sum(one.bytes for one in manifest.files)
    return Side(str(path), digest, manifest.mobilekd, manifest.pipeline, manifest.profile.name, total)


def _latency(files: BundleFiles) -> Latency:
    try:
        return Latency.model_validate_json(files.read(LATENCY, limit_bytes=MAX_LATENCY_BYTES))
    except ValidationError as cause:
        raise VerificationError(f"{files.path}: {LATENCY}: does not read: {cause}") from cause


def _table(files: BundleFiles, manifest: Manifest) -> QuantTable:
    entry = next((one for one in manifest.files if one.path == _TABLE), None)
    if entry is None:
        raise VerificationError(f"{files.path}: {_TABLE}: missing")
    with tempfile.TemporaryDirectory(prefix="mobilekd-diff-") as folder:
        copy = Path(folder) / _TABLE
        files.copy(_TABLE, copy, sha256=entry.sha256)
        return load_table(copy)
