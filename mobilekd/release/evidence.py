"""What a bundle is made from: the results of the stages before it, read and checked once."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, model_validator

from mobilekd.backend import DeployedFacts
from mobilekd.drift import Walk
from mobilekd.errors import StageError
from mobilekd.profile import Deployment, Profile
from mobilekd.quant_table import QuantTable, load_table
from mobilekd.release.network_record import Network
from mobilekd.training.against_alone import with_alone
from mobilekd.training.diagnosis import Diagnosis
from mobilekd.training.history import terms_of


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, allow_inf_nan=False)


class DatasetCard(_Record):
    """dataset.json: what an app must know to feed the model."""

    name: str
    classes: tuple[str, ...]
    image_size: tuple[int, int]
    """Height and width, in pixels."""
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: str
    splits: dict[str, int]
    licence: str = ""
    source: str = ""


class Metrics(_Record):
    """metrics.json: what a trained network is worth; top-1 as a fraction."""

    top1_test: float
    top1_validation: float | None = None
    parameters: int | None = None


class Epoch(_Record):
    """One line of history.json; `terms` are those of the loss, by name."""

    epoch: float
    loss: float
    top1: float | None = None
    terms: dict[str, float] = {}

    @model_validator(mode="before")
    @classmethod
    def _gather_terms(cls, record: Any) -> Any:
        """Put the terms, which stand beside the fixed keys, into a table of their own."""
        return {**record, "terms": terms_of(record)} if isinstance(record, dict) else record


class ParityRow(_Record):
    """One row of parity.json; what was not run is None."""

    deployment: str
    backend: str
    precision: str
    kernels: str | None = None
    ships: bool = True
    status: str
    note: str = ""
    images: int | None = None
    top1_reference: float | None = None
    top1_deployed: float | None = None
    top1_agreement: float | None = None
    max_error_steps: float | None = None
    mean_error_steps: float | None = None
    float_ops: int | None = None
    float_op_names: tuple[str, ...] = ()
    decided_float_ops: tuple[str, ...] = ()
    other_float_ops: tuple[str, ...] = ()
    bytes: int | None = None


class ParityTable(_Record):
    """parity.json."""

    rows: tuple[ParityRow, ...]
    images: int
    tolerance: dict[str, Any] = {}
    drift_images: int = 0
    drift: tuple[Walk, ...] = ()


class FromTrained(_Record):
    """How far the device and this host are from the trained network (benchmarking/agreement)."""

    exact_images: int
    host_exact_images: int
    same_answers: int
    host_same_answers: int
    max_steps: int | None
    host_max_steps: int | None


class OnDevice(_Record):
    """What a model answered on the device or emulator, against the same file on this host (benchmarking/agreement)."""

    images: int
    exact_images: int
    same_answers: int
    max_difference: float | None
    top1: float | None
    host_top1: float | None
    max_steps: int | None = None
    trained: FromTrained | None = None


class Instructions(_Record):
    """Instructions of one inference on an emulated CPU, 1 thread: all, a few classes, and their spread over runs."""

    total: int
    smallest: int
    largest: int
    runs: int
    classes: dict[str, int] = {}
    """Empty where the clock of a virtual machine counted."""
    counted_by: str = "plug-in"
    """"plug-in" of qemu-user, or "icount": the clock of a virtual machine, kernel and all."""


class LayerRow(_Record):
    """What one layer costs: time, or instructions on an emulator (benchmarking/layers)."""

    name: str
    operator: str
    share: float
    ms: float | None = None
    instructions: int | None = None


class LatencyRow(_Record):
    """One row of latency.json; what was not run is None."""

    deployment: str
    backend: str
    precision: str
    ships: bool = True
    latency_kind: str | None = None
    measured_by: str | None = None
    """"mkdrun", or "python" where a runtime's Python package ran the model."""
    p50_ms: float | None = None
    p90_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None
    ci95_ms: tuple[float, float] | None = None
    timed_runs: int | None = None
    warmup_runs: int | None = None
    load_ms: float | None = None
    peak_memory_bytes: int | None = None
    threads: int | None = None
    int8_speedup: float | None = None
    """p50 of fp32 over that of int8, or their instructions on an emulator."""
    guest_instructions: Instructions | None = None
    on_device: OnDevice | None = None
    verdict: str | None = None
    verdict_reason: str | None = None
    layers: tuple[LayerRow, ...] = ()
    """The most expensive first."""
    layers_note: str = ""
    note: str | None = None


class MeasuredDevice(_Record):
    """What latency.json says of the device."""

    machine: str = ""


class Latency(_Record):
    """latency.json: what was measured, where and when."""

    host: str
    ran_on: str
    on_target: bool
    measured: str
    rows: tuple[LatencyRow, ...]
    device: MeasuredDevice | None = None
    place: str = "host"
    """"device", "emulator" or "host"."""
    why: str = ""
    """Why it was not the device; empty when it was, or when the profile asked for this place."""
    worries: tuple[str, ...] = ()
    """What the device showed that can bend its times: governor, temperature, load."""
    samples_ms: dict[str, tuple[tuple[float, ...], ...]] = {}
    """Of each deployment, the samples of each round of measuring."""

    def samples_of(self, deployment: str) -> tuple[float, ...]:
        """Return the samples of all rounds; empty for a model that was not run."""
        return tuple(sample for one_round in self.samples_ms.get(deployment, ()) for sample in one_round)


@dataclass(frozen=True, slots=True)
class Trained:
    """One trained network: its name in the report, its source, its worth and how it learned."""

    role: str
    network: Network
    metrics: Metrics
    history: tuple[Epoch, ...]


@dataclass(frozen=True, slots=True)
class Deployed:
    """One converted model and its file."""

    deployment: Deployment
    facts: DeployedFacts
    path: Path

    @property
    def name(self) -> str:
        """Return the name that is unique in a profile."""
        return self.deployment.name


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything that a bundle and its report are made from.

    Attributes:
        alone: The student's network trained without the teacher; None when the pipeline trains none.
        diagnoses: What the student's curves speak against.
        parity_rows: The rows of parity.json as they are written there, for scripts.
        dataset_path, table_path, latency_path: The files to copy from.
        answers_path: Folder of the answers to the test split; None when they were not kept.
    """

    profile: Profile
    dataset: DatasetCard
    dataset_path: Path
    teacher: Trained
    student: Trained
    quantized: Trained
    table: QuantTable
    table_path: Path
    deployed: tuple[Deployed, ...]
    parity: ParityTable
    parity_rows: tuple[dict[str, Any], ...]
    latency: Latency
    latency_rows: tuple[dict[str, Any], ...]
    latency_path: Path
    alone: Trained | None = None
    diagnoses: tuple[Diagnosis, ...] = ()
    answers_path: Path | None = None

    @property
    def shipped(self) -> tuple[Deployed, ...]:
        """Return the models that go into the bundle."""
        return tuple(model for model in self.deployed if model.deployment.ships)

    @property
    def trained(self) -> tuple[Trained, Trained, Trained]:
        """Return teacher, student and fake-quant student, in the order of the pipeline."""
        return self.teacher, self.student, self.quantized


@dataclass(frozen=True, slots=True)
class Sources:
    """The directories of the artifacts that evidence is read from."""

    dataset: Path
    teacher: Path
    student: Path
    quantized: Path
    simplified: Path
    parity: Path
    latency: Path
    deployed: Sequence[Path]
    baseline: Path | None = None


def read_evidence(profile: Profile, sources: Sources) -> Evidence:
    """Return what the stages found, checked.

    Raises:
        StageError: A file of an artifact does not have the promised form.
    """
    parity_path, latency_path = sources.parity / "parity.json", sources.latency / "latency.json"
    table_path, answers = sources.simplified / "quant_table.json", sources.parity / "answers"
    student = _trained("Student", sources.student)
    alone = _trained("Student, trained alone", sources.baseline) if sources.baseline else None
    return Evidence(
        profile=profile,
        dataset=_read(DatasetCard, sources.dataset / "dataset.json"),
        dataset_path=sources.dataset,
        teacher=_trained("Teacher", sources.teacher),
        student=student,
        quantized=_trained("Student, fake-quantized", sources.quantized),
        table=load_table(table_path),
        table_path=table_path,
        deployed=tuple(_deployed(folder) for folder in sources.deployed),
        parity=_read(ParityTable, parity_path),
        parity_rows=_read(_Rows, parity_path).rows,
        latency=_read(Latency, latency_path),
        latency_rows=_read(_Rows, latency_path).rows,
        latency_path=latency_path,
        alone=alone,
        diagnoses=tuple(with_alone(sources.student, sources.baseline)),
        answers_path=answers if answers.is_dir() else None,
    )


class _Rows(_Record):
    rows: tuple[dict[str, Any], ...]


_T = TypeVar("_T")


def _read(kind: type[_T], path: Path) -> _T:
    try:
        return TypeAdapter(kind).validate_json(path.read_bytes())
    except ValidationError as cause:
        raise StageError(f"{path}: {cause}") from cause


def _trained(role: str, folder: Path) -> Trained:
    network, metrics = _read(Network, folder / "network.json"), _read(Metrics, folder / "metrics.json")
    return Trained(role, network, metrics, _read(tuple[Epoch, ...], folder / "history.json"))


def _deployed(folder: Path) -> Deployed:
    facts = _read(DeployedFacts, folder / "deployment.json")
    return Deployed(Deployment.model_validate(facts.deployment), facts, folder / facts.file)
