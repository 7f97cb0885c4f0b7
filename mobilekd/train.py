"""Teacher and student alone: the options of `mobilekd train` as overrides, the stages they run, and the result."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mobilekd.artifacts import Artifact, Baseline, Student, Teacher
from mobilekd.config import Override, Pipeline
from mobilekd.errors import ConfigError
from mobilekd.pipeline import BuildResult, StageRecord
from mobilekd.plugins import METHODS, STAGES
from mobilekd.stage import Stage
from mobilekd.training.against_alone import with_alone
from mobilekd.training.diagnosis import Diagnosis

LAST, BASELINE = "distill", "alone"

_ROLES: tuple[tuple[str, str, type[Artifact]], ...] = (
    ("teacher", "teacher", Teacher),
    ("student alone", BASELINE, Baseline),
    ("student distilled", LAST, Student),
)


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """What the command line says of a distillation; empty and None leave what the pipeline says.

    Attributes:
        teacher, student: A timm name, or timm:NAME, or python:package.module:factory.
        teacher_checkpoint: Weights of a trained teacher, which is then not trained further.
        methods: Each one name, or several with commas between.
        alpha: Share of the teacher's term: distill.soft_weight.
        epochs: Of the student.
    """

    teacher: str = ""
    student: str = ""
    teacher_checkpoint: str = ""
    methods: Sequence[str] = ()
    temperature: float | None = None
    alpha: float | None = None
    epochs: int | None = None


def train_overrides(options: TrainOptions) -> list[Override]:
    """Return an override for each option that was given.

    Example:
        >>> [(".".join(one.keys), one.value) for one in train_overrides(TrainOptions("resnet34", methods=["kd"]))]
        [('teacher.network', 'timm:resnet34'), ('distill.method', 'kd')]

    Raises:
        ConfigError: There is no such method; the hint lists those there are.
    """
    found: list[tuple[str, object, str]] = []
    if options.teacher:
        found.append(("teacher.network", network_name(options.teacher), f"--teacher {options.teacher}"))
    if options.teacher_checkpoint:
        text = f"--teacher-checkpoint {options.teacher_checkpoint}"
        found += [("teacher.checkpoint", options.teacher_checkpoint, text), ("teacher.epochs", 0, text)]
    if options.student:
        found.append((f"{LAST}.network", network_name(options.student), f"--student {options.student}"))
    if options.methods:
        found.append((f"{LAST}.method", method_value(options.methods), f"--method {','.join(options.methods)}"))
    for key, option, value in (
        ("temperature", "--temperature", options.temperature),
        ("soft_weight", "--alpha", options.alpha),
        ("epochs", "--epochs", options.epochs),
    ):
        if value is not None:
            found.append((f"{LAST}.{key}", value, f"{option} {value:g}"))
    return [Override(tuple(key.split(".")), value, text) for key, value, text in found]


def network_name(name: str) -> str:
    """Return a network's full name: a bare one is timm's.

    Example:
        >>> network_name("resnet34"), network_name("python:nets:tiny")
        ('timm:resnet34', 'python:nets:tiny')
    """
    return name if ":" in name else f"timm:{name}"


def method_value(texts: Sequence[str]) -> str | list[str]:
    """Return distill.method: one name, or a list of several.

    Raises:
        ConfigError: There is no such method.
    """
    names = [name.strip() for text in texts for name in text.split(",")]
    for name in names:
        METHODS.check(name, "--method")
    return names[0] if len(names) == 1 else names


def train_pipeline(pipeline: Pipeline, *, baseline: bool) -> Pipeline:
    """Return a pipeline up to `distill`, with or without the student trained alone.

    Where the pipeline file names no stage `alone`, it has the options of `distill` that both have, so that the two
    students differ in the teacher and in nothing else.

    Raises:
        ConfigError: The pipeline has no stage `distill`.
    """
    names = [stage.stage_name() for stage in pipeline.stages]
    if LAST not in names:
        raise ConfigError(
            f"pipeline {pipeline.name!r} has no stage {LAST!r}", hint="mobilekd list pipelines", code="MKD-222"
        )
    stages = list(pipeline.stages[: names.index(LAST) + 1])
    if not baseline:
        stages = [stage for stage in stages if stage.stage_name() != BASELINE]
    elif BASELINE not in names:
        stages.insert(-1, _alone(stages[-1]))
    return Pipeline(pipeline.name, pipeline.description, pipeline.seed, tuple(stages))


def _alone(distill: Stage) -> Stage:
    kind: type[Stage] = STAGES.load(BASELINE)
    return kind.model_validate({name: value for name, value in distill if name in kind.model_fields})


def train_result(result: BuildResult) -> dict[str, Any]:
    """Return what `mobilekd train --json` prints.

    {"pipeline", "seconds", "networks": [{"role", "network", "top1_test", "top1_validation", "parameters", "seconds",
    "cached", "path"}], "student_weights", "diagnoses": [{"code", "cause", "evidence", "next_step"}]}; seconds of a
    network are those of its training, in this run or in the one that it was kept from.
    """
    records = {one.name: one for one in result.stages}
    networks = [_row(role, records[stage]) for role, stage, kind in _ROLES if result.newest(kind) and stage in records]
    return {
        "pipeline": result.pipeline.name,
        "seconds": round(result.seconds, 3),
        "networks": networks,
        "student_weights": str(result.the(Student).path / "model.safetensors"),
        "diagnoses": [{"code": one.code, **asdict(one)} for one in _diagnoses(result)],
    }


def _row(role: str, record: StageRecord) -> dict[str, Any]:
    folder = record.entry.path
    metrics = read_json(folder / "metrics.json")
    return {
        "role": role,
        "network": read_json(folder / "network.json")["network"],
        **{key: metrics.get(key) for key in ("top1_test", "top1_validation", "parameters")},
        "seconds": round(record.entry.seconds, 3),
        "cached": record.cached,
        "path": str(folder),
    }


def _diagnoses(result: BuildResult) -> list[Diagnosis]:
    """Return what the stage wrote of the student, and how it compares with the student trained alone."""
    alone = result.newest(Baseline)
    return with_alone(result.the(Student).path, alone.path if alone else None)


def read_json(path: Path) -> Any:
    """Return the content of a JSON file that a stage wrote."""
    return json.loads(path.read_text(encoding="utf-8"))
