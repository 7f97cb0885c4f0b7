"""Distillation from a stronger teacher by correlation (Huang et al. 2022, https://arxiv.org/abs/2205.10536)."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pydantic import Field

from mobilekd.method import Batch, Method, Outputs

if TYPE_CHECKING:
    from torch import Tensor, nn


class Dist(Method):
    """T² · (beta · inter + gamma · intra), each 1 - Pearson correlation of softened probabilities (equations 9 to 11).

    Inter compares the classes of an image, intra the images of a class: only the order and spacing of the teacher's
    probabilities count, not their size. A batch of one has no intra term: it is 0.

    Attributes:
        temperature: T > 0; divides both logits. 4 on CIFAR in the authors' code.
        beta: Of the inter term; 2 on CIFAR in the authors' code, 1 in the paper's ImageNet runs.
        gamma: Of the intra term; likewise.
    """

    temperature: float = Field(default=4.0, gt=0)
    beta: float = Field(default=2.0, ge=0)
    gamma: float = Field(default=2.0, ge=0)

    def terms(
        self, student: Outputs, teacher: Outputs, batch: Batch, adapters: "nn.Module | None"
    ) -> "Mapping[str, Tensor]":
        """Return "inter" and "intra"."""
        del batch, adapters
        student_shares = (student.logits.float() / self.temperature).softmax(dim=1)
        teacher_shares = (teacher.logits.detach().float() / self.temperature).softmax(dim=1)
        inter = uncorrelated(student_shares, teacher_shares)
        intra = uncorrelated(student_shares.T, teacher_shares.T)
        squared = self.temperature**2
        return {"inter": squared * self.beta * inter, "intra": squared * self.gamma * intra}


def uncorrelated(first: "Tensor", second: "Tensor") -> "Tensor":
    """Return 1 - Pearson correlation of the rows of two tensors [rows, columns], averaged; 0-d, 0 to 2.

    A row without spread correlates with nothing: it adds 1, or 0 when there is one column, with a gradient of 0.
    """
    from torch.nn.functional import cosine_similarity

    if first.shape[1] == 1:
        return (first * 0).sum()
    one, other = first - first.mean(dim=1, keepdim=True), second - second.mean(dim=1, keepdim=True)
    return 1 - cosine_similarity(one, other, dim=1, eps=1e-8).mean()
