"""Train the teacher, or take it as it comes with `epochs = 0` and a checkpoint."""

from typing import ClassVar

from mobilekd import artifacts
from mobilekd.artifacts import Dataset
from mobilekd.stage import Context, Inputs
from mobilekd.stages._training import NetworkStage


class Teacher(NetworkStage):
    """Options of the teacher; label_smoothing moves that share of each label to the other classes."""

    needs = (Dataset,)
    makes = artifacts.Teacher
    version: ClassVar[int] = 3  # 3: ema warms up; base_batch_size scales by the batch that is used

    def run(self, inputs: Inputs, context: Context) -> None:
        """Train with cross-entropy."""
        self.train_alone(inputs, context)
