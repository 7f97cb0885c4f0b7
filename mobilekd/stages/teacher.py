"""Train the teacher, or take it as it comes with `epochs = 0` and a checkpoint."""

from typing import TYPE_CHECKING

from pydantic import Field

from mobilekd import artifacts
from mobilekd.artifacts import Dataset
from mobilekd.errors import ConfigError
from mobilekd.stage import Context, Inputs
from mobilekd.stages._training import NetworkStage, write_result

if TYPE_CHECKING:
    from torch import Tensor


class Teacher(NetworkStage):
    """Options of the teacher; label_smoothing moves that share of each label to the other classes."""

    needs = (Dataset,)
    makes = artifacts.Teacher

    label_smoothing: float = Field(default=0.0, ge=0, lt=1)

    def run(self, inputs: Inputs, context: Context) -> None:
        """Train with cross-entropy."""
        from torch.nn.functional import cross_entropy

        from mobilekd.training.data import open_split
        from mobilekd.training.loop import Run, fit

        if self.epochs == 0 and not (self.checkpoint or self.pretrained):
            raise ConfigError(
                "teacher.epochs is 0, and there is neither teacher.checkpoint nor teacher.pretrained",
                hint="give the weights of a trained teacher, or train one",
            )
        folder = inputs.newest(Dataset).path
        train, validation, test = (open_split(folder, split) for split in ("train", "calibration", "test"))
        network = self.build_network(train)

        def loss(images: "Tensor", labels: "Tensor") -> "dict[str, Tensor]":
            return {"hard": cross_entropy(network(images), labels, label_smoothing=self.label_smoothing)}

        run = Run("teacher", network, loss, train, validation, context.scratch / "checkpoint.pt", context.progress)
        history = fit(run, self.recipe())
        write_result(
            context.out,
            network,
            facts={"network": self.network, "classes": len(train.facts.classes)},
            history=history,
            test=test,
        )
