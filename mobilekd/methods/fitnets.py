"""Hints (Romero et al. 2015, https://arxiv.org/abs/1412.6550)."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from mobilekd.method import Batch, Method, Outputs, Reads, Sizes
from mobilekd.methods._features import same_size

if TYPE_CHECKING:
    from torch import Tensor, nn


class Fitnets(Method):
    """Mean squared difference of the teacher's map and the student's, which a 1x1 convolution brings to its width.

    The paper trains the guided half first and the rest afterwards; one run with both terms is what RepDistiller and
    mdistiller report, and the schedule of the method (`end`, `decay`) gives the two phases.

    Attributes:
        stage: Which pair of stages, from 0; -1 is the deepest. None is the middle one, as in the paper.
        weight: 100 in RepDistiller.
    """

    reads: ClassVar[frozenset[Reads]] = frozenset({"stages"})

    stage: int | None = None
    weight: float = Field(default=100.0, ge=0)

    def adapters(self, student: Outputs, teacher: Outputs, sizes: Sizes) -> "nn.Module | None":
        """Return the regressor: 1x1 convolution and BatchNorm."""
        from torch import nn

        del sizes
        inputs, outputs = self._of(student).shape[1], self._of(teacher).shape[1]
        return nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs))

    def terms(
        self, student: Outputs, teacher: Outputs, batch: Batch, adapters: "nn.Module | None"
    ) -> "Mapping[str, Tensor]":
        """Return "hint"."""
        from torch.nn.functional import mse_loss

        del batch
        assert adapters is not None
        adapted, hint = same_size(adapters(self._of(student).float()).float(), self._of(teacher).detach().float())
        return {"hint": mse_loss(adapted, hint)}

    def _of(self, outputs: Outputs) -> "Tensor":
        return outputs.stages[len(outputs.stages) // 2 if self.stage is None else self.stage]
