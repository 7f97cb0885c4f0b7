"""The typed files that stages hand to each other, and how they are digested.

Every artifact is a directory. Its digest covers the name and the content of
every file in it, so that two artifacts with one digest are interchangeable.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class MadeBy:
    """How an artifact was made, in words that are the same on every machine.

    Attributes:
        label: Of the stage, as "convert:tflite-int8".
        options: Its options; what says where a file lies reads `stage.GIVEN`.
        sources: Digests of what it read beside artifacts, by name.
        tools: Versions of the distributions that can change its output.
    """

    label: str
    stage: str
    version: int
    options: Mapping[str, Any]
    sources: Mapping[str, str]
    tools: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Artifact:
    """A finished directory and the sha256 of its content, as 64 hex digits; `made_by` is None of a measurement."""

    path: Path
    digest: str
    made_by: MadeBy | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Dataset(Artifact):
    """Decoded images.

    dataset.json (see `DatasetFacts` in training/data.py) and, for each split in train, calibration, test,
    SPLIT_images.npy (uint8 [n, height, width, channels]) and SPLIT_labels.npy (int64 [n]).
    """


@dataclass(frozen=True, slots=True)
class Teacher(Artifact):
    """model.safetensors, network.json, metrics.json, history.json, test_logits.npy."""


@dataclass(frozen=True, slots=True)
class Student(Artifact):
    """The float student: the same files as `Teacher`."""


@dataclass(frozen=True, slots=True)
class Baseline(Artifact):
    """The student's network trained on labels alone, with the files of `Student`."""


@dataclass(frozen=True, slots=True)
class QatStudent(Artifact):
    """The fake-quant student: the same files as `Teacher`; the logits are those of the network as trained."""


@dataclass(frozen=True, slots=True)
class SensitivityReport(Artifact):
    """sensitivity.json: what each layer costs in int8, the worst first (docs/quantization.md)."""


@dataclass(frozen=True, slots=True)
class OnnxModel(Artifact):
    """float.onnx (the float student) and qdq.onnx (the fake-quant student), as exported."""


@dataclass(frozen=True, slots=True)
class SimplifiedModel(Artifact):
    """What every backend is built from; static batch of 1.

    float.onnx (the float student), qdq.onnx (the trained int8 network), stripped.onnx (qdq.onnx without its
    Q/DQ nodes, weights = int8 x scale, same tensor names) and quant_table.json.
    """


@dataclass(frozen=True, slots=True)
class DeployedModel(Artifact):
    """deployment.json (see `DeployedFacts` in backend.py) and the model file it names."""


@dataclass(frozen=True, slots=True)
class ParityReport(Artifact):
    """parity.json: one row per deployment and kernel set (parity.py); each int8 one tensor by tensor (drift.py).

    answers/NAME.npy: the class that each image of the test split got, uint16 [n] (release/answers.py).
    """


@dataclass(frozen=True, slots=True)
class LatencyReport(Artifact):
    """latency.json: one row per deployment, and raw samples (see latency.py)."""


@dataclass(frozen=True, slots=True)
class Bundle(Artifact):
    """bundle/ (the folder) and bundle.zip (the same files in one deterministic archive)."""


def digest_file(path: Path) -> str:
    """Return the sha256 of a file's content, as 64 hex digits."""
    sha = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            sha.update(chunk)
    return sha.hexdigest()


def files_below(folder: Path) -> Iterator[Path]:
    """Yield every file below a folder, relative to it, sorted by the bytes of its posix path."""
    files = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    yield from sorted(files, key=lambda path: path.as_posix().encode())


def digest_tree(folder: Path) -> str:
    """Return one sha256 over the names and contents of all files below a folder; times and modes do not count."""
    lines = [f"{digest_file(folder / path)}  {path.as_posix()}\n" for path in files_below(folder)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def canonical_json(value: object) -> str:
    """Return JSON text that is the same for equal values: sorted keys, two-space indent, final newline."""
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def write_json(path: Path, value: object) -> None:
    """Write canonical JSON; records must be given as plain dicts and lists."""
    path.write_text(canonical_json(value), encoding="utf-8")
