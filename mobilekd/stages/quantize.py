"""Fine-tune the student to int8: calibrate, then train with its own rounding, the teacher kept on."""

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, field_validator

from mobilekd import artifacts
from mobilekd.artifacts import Dataset, Student, Teacher
from mobilekd.stage import Context, Inputs
from mobilekd.stages._packages import missing_packages
from mobilekd.stages._training import (
    TrainingStage,
    distillation_loss,
    known_method,
    load_network,
    network_facts,
    write_result,
)

if TYPE_CHECKING:
    from torch.fx import GraphModule

    from mobilekd.training.data import Images


class Quantize(TrainingStage):
    """Options of quantization-aware training (QAT); epochs = 0 keeps the calibrated network as it is (PTQ).

    Attributes:
        method, temperature, soft_weight: Distillation from the teacher during QAT; see `Distill`.
        symmetry: "symmetric" keeps zero points at 0, which every runtime takes.
        calibration_batches: Batches of training images that set the activation ranges.
    """

    needs = (Dataset, Teacher, Student)
    makes = artifacts.QatStudent
    tools: ClassVar[tuple[str, ...]] = (*TrainingStage.tools, "torchao")

    epochs: int = Field(default=3, ge=0, le=10000)
    learning_rate: float = Field(default=1e-4, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    method: str = "kd"
    temperature: float = Field(default=4.0, gt=0)
    soft_weight: float = Field(default=0.9, ge=0, le=1)
    symmetry: Literal["symmetric", "asymmetric"] = "symmetric"
    calibration_batches: int = Field(default=16, ge=1)

    @field_validator("method")
    @classmethod
    def _method_is_known(cls, name: str) -> str:
        return known_method(name)

    def missing(self) -> tuple[str, ...]:
        """Return the packages that are not installed."""
        return (*super().missing(), *missing_packages("train", ("torchao",)))

    def run(self, inputs: Inputs, context: Context) -> None:
        """Calibrate on training images, train, and keep what the fake-quant network says on the test split."""
        import torch

        from mobilekd.quantization import qat
        from mobilekd.training.data import open_split
        from mobilekd.training.loop import Run, fit, predict

        torch.manual_seed(self.seed)
        torch.set_num_threads(self.threads)
        folder = inputs.newest(Dataset).path
        train, validation, test = (open_split(folder, split) for split in ("train", "calibration", "test"))
        prepared = self.prepare(inputs.newest(Student), train)
        teacher = load_network(inputs.newest(Teacher))
        loss = distillation_loss(self, prepared, teacher)
        checkpoint = context.scratch / "checkpoint.pt"
        run = Run("quantize", prepared, loss, train, validation, checkpoint, context.progress, in_train_mode=False)
        history = fit(run, self.recipe())
        predict(prepared, validation)  # weight ranges follow their weights in a forward pass: here, the last step's
        qat.snap_biases(prepared)
        write_result(
            context.out,
            prepared,
            facts={**network_facts(inputs.newest(Student)), "method": self.method, "symmetry": self.symmetry},
            history=history,
            test=test,
        )

    def prepare(self, student: Student, train: "Images") -> "GraphModule":
        """Return the calibrated network with fake quant, ready to train."""
        import torch

        from mobilekd.quantization import qat
        from mobilekd.quantization.scheme import Scheme

        example = torch.from_numpy(train.normalized(slice(0, 2)))
        prepared = qat.prepare(load_network(student), example, Scheme(self.symmetry))
        order = range(0, min(len(train), self.calibration_batches * self.batch_size), self.batch_size)
        batches = (slice(start, start + self.batch_size) for start in order)
        qat.calibrate(prepared, (torch.from_numpy(train.normalized(rows)) for rows in batches))
        return prepared
