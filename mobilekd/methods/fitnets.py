"""Hints from one stage of the teacher (Romero et al. 2015, https://arxiv.org/abs/1412.6550)."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from mobilekd.errors import ConfigError
from mobilekd.method import Batch, Method, Outputs, Reads, Sizes
from mobilekd.methods._features import fixed, matched

if TYPE_CHECKING:
    from torch import Tensor, nn


class Fitnets(Method):
    """Mean squared error between the student's stage, after a 1x1 convolution, and the teacher's.

    The convolution with its batch normalisation brings the student's channels
    to the teacher's. The paper trains on the hint first and on the labels
    after; here both count at once, as in RepDistiller, unless `end` is below 1.
    It costs accuracy when teacher and student differ in kind (docs/methods.md).

    Attributes:
        weight: A squared error has the scale of the teacher's features, which no source knows. RepDistiller's 100
            drowned the labels of CIFAR-10 (docs/results/distillation.md), 4 did not.
        stage: "middle", or a number: 0 is the shallowest, -1 the deepest.
    """

    reads: ClassVar[frozenset[Reads]] = frozenset({"stages"})

    weight: float = Field(default=4.0, ge=0)
    stage: int | Literal["middle"] = "middle"

    def adapters(self, student: Outputs, teacher: Outputs, sizes: Sizes) -> "nn.Module":
        """Return the 1x1 convolution and its batch normalisation.

        Raises:
            ConfigError: There is no such stage.
        """
        from torch import nn

        del sizes
        stages = len(student.stages)
        if self.stage != "middle" and not -stages <= self.stage < stages:
            raise ConfigError(
                f"fitnets.stage is {self.stage}; the networks have {stages} stages",
                hint=f'a number from 0 to {stages - 1}, -1 for the deepest, or "middle"',
                code="MKD-252",
            )
        wanted = self._pick(teacher).shape[1]
        convolution = nn.Conv2d(self._pick(student).shape[1], wanted, kernel_size=1, bias=False)
        return nn.Sequential(convolution, nn.BatchNorm2d(wanted))

    def terms(
        self, student: Outputs, teacher: Outputs, batch: Batch, adapters: "nn.Module | None"
    ) -> "Mapping[str, Tensor]":
        """Return "hint"."""
        from torch.nn.functional import mse_loss

        del batch
        assert adapters is not None
        ours, theirs = matched(self._pick(student).float(), fixed(self._pick(teacher)))
        return {"hint": mse_loss(adapters(ours).float(), theirs)}

    def _pick(self, outputs: Outputs) -> "Tensor":
        return outputs.stages[len(outputs.stages) // 2 if self.stage == "middle" else self.stage]
