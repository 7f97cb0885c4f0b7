"""Similarity-preserving distillation (Tung & Mori 2019, https://arxiv.org/abs/1907.09682)."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from mobilekd.method import Batch, Method, Outputs, Reads
from mobilekd.methods._features import fixed, full_precision

if TYPE_CHECKING:
    from torch import Tensor, nn


class Sp(Method):
    """‖similarity(student) - similarity(teacher)‖² / batch², summed over the deepest stages.

    Channels and sizes may differ: no adapters.

    Attributes:
        weight: 3000 is RepDistiller's; the paper's γ.
        stages: How many, from the deepest; the paper compares the last one. More than there are means all.
    """

    reads: ClassVar[frozenset[Reads]] = frozenset({"stages"})

    weight: float = Field(default=3000.0, ge=0)
    stages: int = Field(default=1, ge=1)

    def terms(
        self, student: Outputs, teacher: Outputs, batch: Batch, adapters: "nn.Module | None"
    ) -> "Mapping[str, Tensor]":
        """Return "similarity"."""
        import torch
        from torch.nn.functional import mse_loss

        del batch, adapters
        pairs = list(zip(student.stages, teacher.stages, strict=True))[-self.stages :]
        with full_precision(student.stages[-1]):
            losses = [mse_loss(similarity(ours.float()), similarity(fixed(theirs))) for ours, theirs in pairs]
        return {"similarity": torch.stack(losses).sum()}


def similarity(maps: "Tensor") -> "Tensor":
    """Return the inner products of the images of a batch, as rows of length 1; [batch, batch].

    Args:
        maps: [batch, ...], flattened to [batch, features].

    Example:
        >>> from torch import tensor
        >>> similarity(tensor([[2.0, 0.0], [0.0, 3.0]])).tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """
    from torch.nn.functional import normalize

    flat = maps.flatten(1)
    return normalize(flat @ flat.T, dim=1)
