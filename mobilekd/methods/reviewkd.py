"""Knowledge review (Chen et al. 2021, https://arxiv.org/abs/2104.09044)."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from mobilekd.method import Batch, Method, Outputs, Reads, Sizes
from mobilekd.methods._features import fixed, pooled

if TYPE_CHECKING:
    from torch import Tensor, nn


class Reviewkd(Method):
    """Each stage of the teacher is matched by the student's stages from that one to the deepest, fused.

    The fusion (`_review.py`) goes from deep to shallow. Unlike the paper,
    which adds the pooled embedding as one more stage, only stages count. The
    paper raises the weight over the first 20 of 240 epochs: `ramp = 0.083`.

    Attributes:
        weight: 1 is mdistiller's; the authors take 0.6 to 8 on CIFAR-100 by the pair, 5 for most.
        width: Most channels inside the fusion; the student's deepest stage may have fewer.
    """

    reads: ClassVar[frozenset[Reads]] = frozenset({"stages"})

    weight: float = Field(default=1.0, ge=0)
    width: int = Field(default=512, ge=1)

    def adapters(self, student: Outputs, teacher: Outputs, sizes: Sizes) -> "nn.Module":
        """Return the fusion layers."""
        from mobilekd.methods._review import Review

        del sizes
        channels = [stage.shape[1] for stage in student.stages]
        return Review(channels, [stage.shape[1] for stage in teacher.stages], min(self.width, channels[-1]))

    def terms(
        self, student: Outputs, teacher: Outputs, batch: Batch, adapters: "nn.Module | None"
    ) -> "Mapping[str, Tensor]":
        """Return "review"."""
        import torch

        del batch
        assert adapters is not None
        wanted = [fixed(stage) for stage in teacher.stages]
        fused = adapters([stage.float() for stage in student.stages], [stage.shape[-2:] for stage in wanted])
        losses = [hierarchical_context(ours.float(), theirs) for ours, theirs in zip(fused, wanted, strict=True)]
        return {"review": torch.stack(losses).sum()}


def hierarchical_context(student: "Tensor", teacher: "Tensor") -> "Tensor":
    """Return the mean squared error of the maps and of their 4x4, 2x2 and 1x1 averages, weighted 1, ½, ¼, ⅛; 0-d.

    A grid no smaller than the map is left out and passes its weight on; the weights are divided by their sum.

    Args:
        student: [batch, channels, height, width].
        teacher: In the same shape.
    """
    from torch.nn.functional import mse_loss

    total, weight, weights = mse_loss(student, teacher), 1.0, 1.0
    for cells in (cells for cells in (4, 2, 1) if cells < min(student.shape[-2:])):
        weight /= 2
        weights += weight
        total = total + weight * mse_loss(pooled(student, cells, cells), pooled(teacher, cells, cells))
    return total / weights
