"""Distillation from a stronger teacher (Huang et al. 2022, https://arxiv.org/abs/2205.10536)."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pydantic import Field

from mobilekd.method import Batch, Method, Outputs
from mobilekd.methods._features import fixed

if TYPE_CHECKING:
    from torch import Tensor, nn


class Dist(Method):
    """T² · (beta · (1 - r) over each image's classes + gamma · (1 - r) over each class's images); r is Pearson's.

    A correlation asks for the order and the relative gaps of the teacher's
    probabilities, not their values: for a teacher much stronger than the
    student. The second part compares the images of a batch: it needs two of
    them, and says more with more.

    Attributes:
        temperature: T > 0; divides both logits. The authors: 1 on ImageNet, 4 on CIFAR-100.
        beta: Of "inter". The authors: 1 on ImageNet, 2 on CIFAR-100.
        gamma: Of "intra"; likewise.
    """

    temperature: float = Field(default=1.0, gt=0)
    beta: float = Field(default=1.0, ge=0)
    gamma: float = Field(default=1.0, ge=0)

    def terms(
        self, student: Outputs, teacher: Outputs, batch: Batch, adapters: "nn.Module | None"
    ) -> "Mapping[str, Tensor]":
        """Return "inter" and "intra", times beta and gamma."""
        del batch, adapters
        of_student = (student.logits.float() / self.temperature).softmax(1)
        of_teacher = (fixed(teacher.logits) / self.temperature).softmax(1)
        square = self.temperature**2
        return {
            "inter": self.beta * square * uncorrelated(of_student, of_teacher),
            "intra": self.gamma * square * uncorrelated(of_student.T, of_teacher.T),
        }


def uncorrelated(student: "Tensor", teacher: "Tensor") -> "Tensor":
    """Return 1 - Pearson's r of two rows, averaged over the rows; 0-d, 0 to 2.

    A row without variance has r = 0 and gives no gradient.

    Args:
        student: [rows, columns].
        teacher: Likewise.

    Example:
        >>> from torch import tensor
        >>> uncorrelated(tensor([[1.0, 2.0, 3.0]]), tensor([[6.0, 4.0, 2.0]])).item()
        2.0
    """
    from torch.nn.functional import normalize

    # The floor of a norm is far below 1/1000²: the probabilities of a rare class differ little over a batch.
    first = normalize(student - student.mean(1, keepdim=True), dim=1, eps=1e-12)
    second = normalize(teacher - teacher.mean(1, keepdim=True), dim=1, eps=1e-12)
    return 1 - (first * second).sum(1).mean()
