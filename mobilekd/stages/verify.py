"""Prove every deployed model equal to the model that was trained, on the whole test split, on this host."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from mobilekd.artifacts import (
    Dataset,
    DeployedModel,
    ParityReport,
    QatStudent,
    SimplifiedModel,
    Student,
    Teacher,
    write_json,
)
from mobilekd.errors import VerificationError
from mobilekd.profile import Profile, Tolerance
from mobilekd.stage import Context, Inputs, Stage
from mobilekd.stages._packages import missing_packages

if TYPE_CHECKING:
    from mobilekd.backend import DeployedFacts
    from mobilekd.drift import Walk


class Verify(Stage):
    """Options of the proof; the tolerance comes from the profile."""

    needs = (Dataset, Teacher, Student, QatStudent, SimplifiedModel)
    gathers = (DeployedModel,)
    makes = ParityReport
    version: ClassVar[int] = 5
    tools: ClassVar[tuple[str, ...]] = ("numpy", "onnx", "onnxruntime")

    threads: int = Field(default=1, ge=1)
    other_kernel_images: int = Field(default=1000, ge=1)
    """First images of the test split for kernel sets that are not a backend's default: reference kernels are slow."""
    drift_images: int = Field(default=2, ge=0)
    """First images of the test split on which every int8 model is compared tensor by tensor; 0 leaves that out."""
    tolerance: Tolerance = Tolerance()

    def missing(self) -> tuple[str, ...]:
        """Return the packages that run the trained network tensor by tensor and are not installed."""
        return missing_packages("onnx", ("onnx", "onnxruntime")) if self.drift_images else ()

    def for_profile(self, profile: Profile) -> tuple[Stage, ...]:
        """Return this stage with the profile's tolerance."""
        return (self.model_copy(update={"tolerance": profile.tolerance}),)

    def run(self, inputs: Inputs, context: Context) -> None:
        """Write parity.json, and answers/ with the predicted class of every image.

        Raises:
            VerificationError: A tolerance does not hold; the rows are kept in the scratch directory.
        """
        trained = _Trained(inputs)
        models = inputs.all(DeployedModel)
        trained.write_answers(context.out / "answers")
        rows: list[dict[str, Any]] = []
        with context.progress.bar("verify", len(models)) as bar:
            for model in models:
                rows += self._rows(model.path, trained, context)
                bar.advance(1, str(rows[-1]["deployment"]))
        walks = self._walks(inputs, trained, context) if self.drift_images else []
        report = {"rows": rows, "tolerance": self.tolerance.model_dump(), "images": len(trained.labels)}
        report |= {"drift_images": min(self.drift_images, len(trained.labels)), "drift": [asdict(one) for one in walks]}
        if failed := _failures(rows, walks):
            kept = context.scratch / "parity.json"
            write_json(kept, report)
            raise VerificationError(
                "parity does not hold:\n  " + "\n  ".join(failed), hint=f"all rows: {kept}", code="MKD-701"
            )
        write_json(context.out / "parity.json", report)

    def _walks(self, inputs: Inputs, trained: "_Trained", context: Context) -> "list[Walk]":
        """Return every int8 model that runs here, tensor by tensor, under every kernel set."""
        from mobilekd.plugins import BACKENDS
        from mobilekd.stages._drift import Walker
        from mobilekd.worker import read_facts

        found = [(model.path, read_facts(model.path / "deployment.json")) for model in inputs.all(DeployedModel)]
        runs = [
            (folder / facts.file, facts, kernels)
            for folder, facts in found
            if facts.runnable and facts.deployment["precision"] == "int8"
            for kernels in BACKENDS.load(str(facts.deployment["backend"])).kernels
        ]
        if not runs:
            return []
        images = trained.images[: self.drift_images]
        walker = Walker(inputs.newest(SimplifiedModel).path, images, context.scratch)
        walks = []
        with context.progress.bar("verify: tensor by tensor", len(runs)) as bar:
            for model, facts, kernels in runs:
                walks.append(walker.walk(model, facts, kernels))
                bar.advance(1, f"{facts.name} ({kernels})")
        return walks

    def _rows(self, folder: Path, trained: "_Trained", context: Context) -> list[dict[str, Any]]:
        from mobilekd.plugins import BACKENDS
        from mobilekd.worker import read_facts

        facts = read_facts(folder / "deployment.json")
        backend = str(facts.deployment["backend"])
        is_int8 = facts.deployment["precision"] == "int8"
        kernels: tuple[str, ...] = BACKENDS.load(backend).kernels if is_int8 else BACKENDS.load(backend).kernels[:1]
        if not facts.runnable:
            note = facts.note.removeprefix("built, not run: ")
            return [{**_facts_row(folder, facts, kernels[0], trained), "status": "built, not run", "note": note}]
        return [self._row(folder, facts, one, trained, context) for one in kernels]

    def _row(
        self, folder: Path, facts: "DeployedFacts", kernels: str, trained: "_Trained", context: Context
    ) -> dict[str, Any]:
        from mobilekd.parity import broken_tolerances, compare
        from mobilekd.plugins import BACKENDS
        from mobilekd.release.answers import write_answers
        from mobilekd.worker import run_model

        backend, is_int8 = str(facts.deployment["backend"]), facts.deployment["precision"] == "int8"
        model = folder / facts.file
        is_default = kernels == BACKENDS.load(backend).kernels[0]
        part = slice(None if is_default else self.other_kernel_images)
        images = trained.images[part]
        logits = run_model(
            backend, model, facts, images, kernels=kernels, threads=self.threads, scratch=context.scratch
        )
        if is_default and trained.has_answers:
            write_answers(context.out / "answers", facts.name, logits.argmax(axis=1))
        reference = trained.int8_logits if is_int8 else trained.float_logits
        parity = compare(reference[part], logits, trained.labels[part], trained.step)
        row = _facts_row(folder, facts, kernels, trained)
        undecided = len(facts.float_ops) - len(row["decided_float_ops"]) if is_int8 else None
        broken = broken_tolerances(parity, undecided, self.tolerance, is_default=is_default)
        status = {"status": "failed" if broken else "passed", "note": "; ".join(broken)}
        return {**row, **asdict(parity), "images": len(images), **status}


class _Trained:
    """What the trained networks say on the test split."""

    def __init__(self, inputs: Inputs) -> None:
        import json

        import numpy as np
        from numpy.typing import NDArray

        from mobilekd.quant_table import load_table
        from mobilekd.training.data import open_split

        test = open_split(inputs.newest(Dataset).path, "test")
        self.images: NDArray[np.float32] = test.normalized(slice(None))
        self.labels = test.labels
        self.float_logits: NDArray[np.float32] = np.load(inputs.newest(Student).path / "test_logits.npy")
        self.int8_logits: NDArray[np.float32] = np.load(inputs.newest(QatStudent).path / "test_logits.npy")
        self.teacher_logits: NDArray[np.float32] = np.load(inputs.newest(Teacher).path / "test_logits.npy")
        teacher = json.loads((inputs.newest(Teacher).path / "metrics.json").read_text(encoding="utf-8"))
        self.top1_teacher: float = teacher["top1_test"]
        quantized = load_table(inputs.newest(SimplifiedModel).path / "quant_table.json")
        self.decided = tuple(one.name for one in quantized.float_operators if one.is_decided)
        table = quantized.by_name()
        # A student whose last layer stays float has no output scale; 255 steps over its logits stand in.
        spread = float(self.int8_logits.max() - self.int8_logits.min())
        self.step = table["logits"].scale[0] if "logits" in table else spread / 255

    @property
    def has_answers(self) -> bool:
        """Return whether the number of a class fits into the file of answers."""
        from mobilekd.release.answers import MAX_CLASSES

        return bool(self.float_logits.shape[1] <= MAX_CLASSES)

    def write_answers(self, folder: Path) -> None:
        """Write the labels and what the three trained networks answer."""
        from mobilekd.release.answers import LABELS, QUANTIZED, STUDENT, TEACHER, write_answers

        if not self.has_answers:
            return
        write_answers(folder, LABELS, self.labels)
        logits = {TEACHER: self.teacher_logits, STUDENT: self.float_logits, QUANTIZED: self.int8_logits}
        for name, one in logits.items():
            write_answers(folder, name, one.argmax(axis=1))


def _failures(rows: "list[dict[str, Any]]", walks: "list[Walk]") -> list[str]:
    """Return a line for each model that broke a tolerance: what broke, and the first tensor that drifts."""
    from mobilekd.stages._drift import walk_told

    drifts = {(one.deployment, one.kernels): f"; {walk_told(one)}" for one in walks}
    return [
        f"{row['deployment']} ({row['kernels']}): {row['note']}{drifts.get((row['deployment'], row['kernels']), '')}"
        for row in rows
        if row["status"] == "failed"
    ]


def _facts_row(folder: Path, facts: "DeployedFacts", kernels: str, trained: _Trained) -> dict[str, Any]:
    from mobilekd.parity import decided_float_ops

    nothing = dict.fromkeys(
        ("top1_reference", "top1_deployed", "top1_agreement", "max_error_steps", "mean_error_steps"), None
    )
    is_int8 = facts.deployment["precision"] == "int8"
    return {
        "deployment": facts.name,
        "backend": facts.deployment["backend"],
        "precision": facts.deployment["precision"],
        "ships": facts.deployment["ships"],
        "kernels": kernels,
        "top1_teacher": trained.top1_teacher,
        "float_ops": len(facts.float_ops) if is_int8 else None,
        "float_op_names": list(facts.float_ops) if is_int8 else [],
        "decided_float_ops": list(decided_float_ops(facts.float_ops, trained.decided)) if is_int8 else [],
        "other_float_ops": list(facts.other_float_ops) if is_int8 else [],
        "bytes": (folder / facts.file).stat().st_size,
        "images": 0,
        **nothing,
    }
