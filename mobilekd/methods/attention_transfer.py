"""Attention transfer (Zagoruyko & Komodakis 2017, https://arxiv.org/abs/1612.03928)."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from mobilekd.method import Batch, Method, Outputs, Reads
from mobilekd.methods._features import same_size

if TYPE_CHECKING:
    from torch import Tensor, nn


class AttentionTransfer(Method):
    """Sum over stages of the mean squared difference of two attention maps of length 1 (equation 2, p = 2).

    Channels are summed away, so widths need no adapter.

    Attributes:
        weight: 1000, as the paper's 10³ / 2 with its halves, and as RepDistiller has it.
    """

    reads: ClassVar[frozenset[Reads]] = frozenset({"stages"})

    weight: float = Field(default=1000.0, ge=0)

    def terms(
        self, student: Outputs, teacher: Outputs, batch: Batch, adapters: "nn.Module | None"
    ) -> "Mapping[str, Tensor]":
        """Return "attention"."""
        import torch

        del batch, adapters
        pairs = zip(student.stages, teacher.stages, strict=True)
        return {"attention": torch.stack([attention_distance(one, other.detach()) for one, other in pairs]).sum()}


def attention_map(features: "Tensor") -> "Tensor":
    """Return the mean over channels of squared features, each image's map of length 1: [batch, height * width]."""
    from torch.nn.functional import normalize

    return normalize(features.float().square().mean(dim=1).flatten(1), dim=1)


def attention_distance(student: "Tensor", teacher: "Tensor") -> "Tensor":
    """Return the mean squared difference of the attention maps of two stages [batch, channels, height, width]; 0-d."""
    one, other = same_size(student.float(), teacher.float())
    return (attention_map(one) - attention_map(other)).square().mean()
