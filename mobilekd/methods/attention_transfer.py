"""Attention transfer (Zagoruyko & Komodakis 2017, https://arxiv.org/abs/1612.03928)."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from mobilekd.method import Batch, Method, Outputs, Reads
from mobilekd.methods._features import fixed, matched

if TYPE_CHECKING:
    from torch import Tensor, nn


class AttentionTransfer(Method):
    """Mean squared difference of the attention maps, summed over the stages.

    An attention map says where a stage is active, whatever its channels: no
    adapters. It costs accuracy when teacher and student differ in kind
    (docs/methods.md).

    Attributes:
        weight: 1000 is the paper's β as RepDistiller counts it.
    """

    reads: ClassVar[frozenset[Reads]] = frozenset({"stages"})

    weight: float = Field(default=1000.0, ge=0)

    def terms(
        self, student: Outputs, teacher: Outputs, batch: Batch, adapters: "nn.Module | None"
    ) -> "Mapping[str, Tensor]":
        """Return "attention"."""
        import torch
        from torch.nn.functional import mse_loss

        del batch, adapters
        pairs = zip(student.stages, teacher.stages, strict=True)
        sized = [matched(ours.float(), fixed(theirs)) for ours, theirs in pairs]
        return {"attention": torch.stack([mse_loss(attention(a), attention(b)) for a, b in sized]).sum()}


def attention(maps: "Tensor") -> "Tensor":
    """Return the mean over channels of the squares, as rows of length 1; [batch, height · width].

    Args:
        maps: [batch, channels, height, width].

    Example:
        >>> from torch import tensor
        >>> attention(tensor([[[[3.0, 0.0]], [[0.0, 0.0]]]])).tolist()
        [[1.0, 0.0]]
    """
    from torch.nn.functional import normalize

    return normalize(maps.square().mean(1).flatten(1), dim=1)
