"""Relational knowledge distillation (Park et al. 2019, https://arxiv.org/abs/1904.05068)."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from mobilekd.method import Batch, Method, Outputs, Reads

if TYPE_CHECKING:
    from torch import Tensor, nn


class Rkd(Method):
    """Huber loss between distances of pairs, and between angles of triplets, of the embeddings of a batch.

    Attributes:
        distance_weight: 25 in the paper's classification runs.
        angle_weight: 50 in the paper's classification runs.
    """

    reads: ClassVar[frozenset[Reads]] = frozenset({"embedding"})

    distance_weight: float = Field(default=25.0, ge=0)
    angle_weight: float = Field(default=50.0, ge=0)

    def terms(
        self, student: Outputs, teacher: Outputs, batch: Batch, adapters: "nn.Module | None"
    ) -> "Mapping[str, Tensor]":
        """Return "distance" and "angle"."""
        from torch.nn.functional import smooth_l1_loss

        del batch, adapters
        ours, theirs = student.embedded().float(), teacher.embedded().detach().float()
        distance = smooth_l1_loss(pair_distances(ours), pair_distances(theirs))
        angle = smooth_l1_loss(triplet_angles(ours), triplet_angles(theirs))
        return {"distance": self.distance_weight * distance, "angle": self.angle_weight * angle}


def pair_distances(embedding: "Tensor") -> "Tensor":
    """Return the distances of all pairs over their mean: [batch, batch], zeros on the diagonal (equations 4 and 5)."""
    import torch

    squares = (embedding[:, None] - embedding[None]).square().sum(dim=2)
    # The root of 0 has no slope: those pairs, the diagonal among them, stay 0 and give no gradient.
    is_apart = squares > 1e-12
    distances = torch.where(is_apart, squares.clamp(min=1e-12).sqrt(), 0.0)
    return distances / distances[is_apart].mean().clamp(min=1e-12) if is_apart.any() else distances


def triplet_angles(embedding: "Tensor") -> "Tensor":
    """Return the cosine of the angle at i between j and k, for all triplets: [batch, batch, batch] (equation 7)."""
    from torch.nn.functional import normalize

    ways = normalize(embedding[None] - embedding[:, None], dim=2)
    return ways @ ways.transpose(1, 2)
