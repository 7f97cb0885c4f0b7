"""Fine-tune the student to int8: calibrate, then train with its own rounding, the teacher kept on."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from mobilekd import artifacts
from mobilekd.artifacts import Dataset, Student, Teacher, write_json
from mobilekd.stage import Context, Inputs
from mobilekd.stages._calibration import CalibrationStage, Calibrator
from mobilekd.stages._curves import curves
from mobilekd.stages._distillation import MethodOptions
from mobilekd.stages._packages import missing_packages
from mobilekd.stages._training import TrainingStage, load_network, network_facts, open_splits, write_result

if TYPE_CHECKING:
    from torch.fx import GraphModule

    from mobilekd.quantization.mixed import Mixed
    from mobilekd.training.data import Images
    from mobilekd.training.loop import History

_JUDGED_IMAGES = 64
_WORSE = 0.002


class Quantize(CalibrationStage, MethodOptions, TrainingStage):
    """Options of quantization: calibration, then training with the rounding (QAT); epochs = 0 stops at calibration.

    Those of calibration and of mixed precision: `CalibrationStage`.

    Attributes:
        method, method_options, temperature, soft_weight: Distillation from the teacher during QAT, on logits alone; see
            `MethodOptions`.
        scales: "learned" trains every scale (LSQ); "fixed" keeps activations as calibrated, weights at their range.
        precision, compile, device: Fixed: the rounding is trained in fp32, as exported, on the CPU.
    """

    needs = (Dataset, Teacher, Student)
    makes = artifacts.QatStudent
    tools: ClassVar[tuple[str, ...]] = (*TrainingStage.tools, "torchao")
    version: ClassVar[int] = 10  # 10: beta of dkd is 1, with a ramp

    epochs: int = Field(default=3, ge=0, le=10000)
    learning_rate: float = Field(default=1e-4, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    scales: Literal["learned", "fixed"] = "learned"

    @field_validator("precision")
    @classmethod
    def _precision_is_fp32(cls, precision: str) -> str:
        if precision != "fp32":
            raise ValueError("quantization is trained in fp32: another precision would hide the rounding to int8")
        return precision

    @field_validator("device")
    @classmethod
    def _is_on_the_cpu(cls, device: str) -> str:
        if device == "cuda":
            raise ValueError("an exported network is trained on the CPU; leave device out")
        return device

    @field_validator("compile")
    @classmethod
    def _is_not_compiled(cls, value: bool) -> bool:  # noqa: FBT001 - pydantic calls it
        if value:
            raise ValueError("an exported network can't be compiled again; leave compile out")
        return value

    @model_validator(mode="after")
    def _methods_read_logits(self) -> Self:
        for part in self.strategy().parts:
            if part.method.uses_features():
                raise ValueError(f"method {part.name!r} reads features, and an exported network has logits only")
        return self

    def outline(self) -> Mapping[str, str]:
        """Return the loss and when the teacher runs; nothing where calibration is all."""
        return super().outline() if self.epochs else {}

    def missing(self) -> tuple[str, ...]:
        """Return the packages that are not installed."""
        return (*super().missing(), *missing_packages("train", ("torchao",)))

    def run(self, inputs: Inputs, context: Context) -> None:
        """Calibrate on training images, train, and keep what the fake-quant network says on the test split."""
        import torch

        from mobilekd.quantization import qat
        from mobilekd.quantization.ties import clear_sums, told

        torch.manual_seed(self.seed)
        torch.set_num_threads(self.threads)
        train, validation, test = open_splits(inputs)
        student = inputs.newest(Student)
        prepared, mixed = self._calibrated(student, (train, validation), context)
        judge = _Judge(prepared, validation)
        before = judge.report()
        history = self._train(prepared, inputs, (train, validation), context)
        qat.settle_scales(prepared)
        if unclear := clear_sums(prepared):
            context.progress.say(f"quantize: {len(unclear)} sum(s) can be a step apart on another CPU: {told(unclear)}")
        after = judge.report() if self.epochs else None
        if after and after["top1"] < before["top1"] - _WORSE:
            context.progress.say(_why_worse(before, after))
        qat.snap_biases(prepared)
        write_json(context.out / "layers.json", {"calibrated": before, "trained": after})
        facts: dict[str, object] = {
            "method": [part.name for part in self.strategy().parts],
            "symmetry": self.symmetry,
            "equalize": self.equalize,
            "keep_float": sorted({*self.keep_float, *(mixed.layers if mixed else ())}),
            "mixed": asdict(mixed) if mixed else None,
        }
        write_result(context.out, prepared, facts={**network_facts(student), **facts}, history=history, test=test)

    def _calibrated(
        self, student: Student, splits: "tuple[Images, Images]", context: Context
    ) -> "tuple[GraphModule, Mixed | None]":
        train, validation = splits
        calibrator = Calibrator(self, student, train)
        if self.max_top1_drop is None:
            return calibrator.calibrated(frozenset(self.keep_float)), None
        prepared, mixed = calibrator.mixed(self.max_top1_drop, validation, context.progress)
        context.progress.say(f"quantize: {mixed.told()}")
        return prepared, mixed

    def _train(
        self, prepared: "GraphModule", inputs: Inputs, splits: "tuple[Images, Images]", context: Context
    ) -> "History":
        from mobilekd.quantization import qat
        from mobilekd.training.loop import Run, fit
        from mobilekd.training.objective import TeacherNetwork

        if not self.epochs:
            return []
        if self.scales == "learned":
            qat.learn_scales(prepared)
        teacher = TeacherNetwork(load_network(inputs.newest(Teacher)))
        loss = self.objective(prepared, (teacher,), splits[0])
        checkpoint = context.scratch / "checkpoint.pt"
        context.progress.say(f"quantize: {loss.describe()}; {loss.teacher_use()}")
        with curves(context, "quantize") as watch:
            run = Run(
                "quantize", prepared, loss, *splits, checkpoint, context.progress, in_train_mode=False, watch=watch
            )
            return fit(run, replace(self.recipe(), device="cpu"))


class _Judge:
    """What a prepared network is worth: top-1 on the validation images, and the error of each tensor."""

    def __init__(self, prepared: "GraphModule", validation: "Images") -> None:
        self._prepared = prepared
        self._validation = validation

    def report(self) -> dict[str, Any]:
        import torch

        from mobilekd.quantization.paired import layer_errors
        from mobilekd.training.loop import predict, top1

        share = top1(predict(self._prepared, self._validation), self._validation.labels)
        images = torch.from_numpy(self._validation.normalized(slice(0, _JUDGED_IMAGES)))
        layers = [{"name": one.name, "sqnr_db": one.sqnr_db} for one in layer_errors(self._prepared, images)]
        return {"top1": share, "layers": layers}


def _why_worse(before: dict[str, Any], after: dict[str, Any]) -> str:
    """Return a line that says how much QAT lost, and in which layer most."""
    losses = [
        (new["sqnr_db"] - old["sqnr_db"], new["name"], old["sqnr_db"], new["sqnr_db"])
        for old, new in zip(before["layers"], after["layers"], strict=True)
    ]
    _, name, old, new = min(losses)
    return (
        f"quantize: training lost top-1, {before['top1']:.2%} calibrated, {after['top1']:.2%} trained; the error grew"
        f" most in {name} ({old} dB to {new} dB). Lower quantize.learning_rate, or ship the calibrated network with"
        " quantize.epochs = 0"
    )
