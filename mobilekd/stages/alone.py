"""Train the student's network without a teacher: what distillation has to beat."""

from typing import ClassVar

from mobilekd import artifacts
from mobilekd.artifacts import Dataset
from mobilekd.stage import Context, Inputs
from mobilekd.stages._training import NetworkStage


class Alone(NetworkStage):
    """Options of the baseline; give it those of `distill` for a comparison of like with like."""

    needs = (Dataset,)
    makes = artifacts.Baseline
    version: ClassVar[int] = 2  # 2: ema warms up; base_batch_size scales by the batch that is used

    def run(self, inputs: Inputs, context: Context) -> None:
        """Train with cross-entropy."""
        self.train_alone(inputs, context)
