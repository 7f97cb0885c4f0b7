"""Train the student from the teacher's softened logits."""

from pydantic import Field, field_validator

from mobilekd import artifacts
from mobilekd.artifacts import Dataset, Teacher
from mobilekd.stage import Context, Inputs
from mobilekd.stages._training import NetworkStage, distillation_loss, known_method, load_network, write_result


class Distill(NetworkStage):
    """Options of the student.

    Attributes:
        method: A distillation method; `mobilekd list methods`.
        temperature: Divides the logits of both.
        soft_weight: Share of the teacher's term; papers call it alpha, some the other way round.
    """

    needs = (Dataset, Teacher)
    makes = artifacts.Student

    method: str = "kd"
    temperature: float = Field(default=4.0, gt=0)
    soft_weight: float = Field(default=0.9, ge=0, le=1)

    @field_validator("method")
    @classmethod
    def _method_is_known(cls, name: str) -> str:
        return known_method(name)

    def run(self, inputs: Inputs, context: Context) -> None:
        """Train; the teacher sees the very pixels that the student sees."""
        from mobilekd.training.data import open_split
        from mobilekd.training.loop import Run, fit

        folder = inputs.newest(Dataset).path
        train, validation, test = (open_split(folder, split) for split in ("train", "calibration", "test"))
        network = self.build_network(train)
        teacher = load_network(inputs.newest(Teacher))
        loss = distillation_loss(self, network, teacher)
        run = Run("distill", network, loss, train, validation, context.scratch / "checkpoint.pt", context.progress)
        history = fit(run, self.recipe())
        write_result(
            context.out,
            network,
            facts={
                "network": self.network,
                "classes": len(train.facts.classes),
                "method": self.method,
            },
            history=history,
            test=test,
        )
