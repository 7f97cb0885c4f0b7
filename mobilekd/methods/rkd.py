"""Relational knowledge distillation (Park et al. 2019, https://arxiv.org/abs/1904.05068)."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from mobilekd.method import Batch, Method, Outputs, Reads
from mobilekd.methods._features import fixed, full_precision

if TYPE_CHECKING:
    from torch import Tensor, nn


class Rkd(Method):
    """Huber loss between the distances, and between the angles, that embeddings have among the images of a batch.

    Widths may differ: no adapters. It takes batch² · width numbers for each
    network: 134 MB at batch 128 and width 2048.

    Attributes:
        distance_weight: Of "distance"; 25 is the paper's.
        angle_weight: Of "angle"; 50 is the paper's.
    """

    reads: ClassVar[frozenset[Reads]] = frozenset({"embedding"})

    distance_weight: float = Field(default=25.0, ge=0)
    angle_weight: float = Field(default=50.0, ge=0)

    def terms(
        self, student: Outputs, teacher: Outputs, batch: Batch, adapters: "nn.Module | None"
    ) -> "Mapping[str, Tensor]":
        """Return "distance" and "angle", times their weights."""
        from torch.nn.functional import smooth_l1_loss

        del batch, adapters
        with full_precision(student.embedded()):
            distances, angles = relations(student.embedded().float())
            wanted_distances, wanted_angles = relations(fixed(teacher.embedded()))
            return {
                "distance": self.distance_weight * smooth_l1_loss(distances, wanted_distances),
                "angle": self.angle_weight * smooth_l1_loss(angles, wanted_angles),
            }


def relations(embedding: "Tensor") -> "tuple[Tensor, Tensor]":
    """Return distances in units of their mean, [batch, batch], and cosines at each image, [batch, batch, batch].

    Cosine [j, i, k] is that of the angle i-j-k, at j. Where two images
    coincide, distance and cosine are 0 and have no gradient.

    Args:
        embedding: [batch, width].
    """
    from torch.linalg import vector_norm

    images = len(embedding)
    between = embedding[None] - embedding[:, None]
    distances = vector_norm(between, dim=-1)
    directions = between / distances.clamp_min(1e-12)[..., None]
    # Of the distances between two images: the diagonal is no distance.
    mean = distances.sum() / max(images * (images - 1), 1)
    return distances / mean.clamp_min(1e-12), directions @ directions.mT
