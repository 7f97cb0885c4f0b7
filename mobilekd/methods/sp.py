"""Similarity-preserving distillation (Tung & Mori 2019, https://arxiv.org/abs/1907.09682)."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from mobilekd.method import Batch, Method, Outputs, Reads

if TYPE_CHECKING:
    from torch import Tensor, nn


class Sp(Method):
    """‖G_teacher - G_student‖² / batch² of row-normalised similarities of the deepest stage (equations 2 to 4).

    Widths and sizes may differ: only similarities between images are compared.

    Attributes:
        weight: 3000 in the paper.
    """

    reads: ClassVar[frozenset[Reads]] = frozenset({"stages"})

    weight: float = Field(default=3000.0, ge=0)

    def terms(
        self, student: Outputs, teacher: Outputs, batch: Batch, adapters: "nn.Module | None"
    ) -> "Mapping[str, Tensor]":
        """Return "similarity"."""
        del batch, adapters
        difference = similarities(student.stages[-1]) - similarities(teacher.stages[-1].detach())
        return {"similarity": difference.square().mean()}


def similarities(features: "Tensor") -> "Tensor":
    """Return dot products of all images' features [batch, ...], each row of length 1: [batch, batch]."""
    from torch.nn.functional import normalize

    flat = features.float().flatten(1)
    return normalize(flat @ flat.T, dim=1)
