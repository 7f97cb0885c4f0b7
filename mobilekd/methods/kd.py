"""Knowledge distillation from softened logits (Hinton et al. 2015, https://arxiv.org/abs/1503.02531)."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pydantic import Field

from mobilekd.method import Method, Outputs

if TYPE_CHECKING:
    from torch import Tensor, nn


class Kd(Method):
    """soft_weight * softened KL + (1 - soft_weight) * cross-entropy.

    Attributes:
        temperature: T > 0; divides both logits. 2 to 5 is usual.
        soft_weight: Share of the teacher's term, 0 to 1. Papers call it alpha, some the other way round.
    """

    temperature: float = Field(default=4.0, gt=0)
    soft_weight: float = Field(default=0.9, ge=0, le=1)

    def terms(
        self, student: Outputs, teacher: Outputs, labels: "Tensor", adapters: "nn.Module | None"
    ) -> "Mapping[str, Tensor]":
        """Return the two weighted terms, "soft" and "hard"."""
        from torch.nn.functional import cross_entropy

        del adapters
        soft = softened_kl(student.logits, teacher.logits, self.temperature)
        hard = cross_entropy(student.logits, labels)
        return {"soft": self.soft_weight * soft, "hard": (1 - self.soft_weight) * hard}


def softened_kl(student_logits: "Tensor", teacher_logits: "Tensor", temperature: float) -> "Tensor":
    """Return T² · KL(teacher_T ‖ student_T) in nats, averaged over the batch; 0-d.

    T² keeps the soft gradient comparable across T (https://arxiv.org/abs/1503.02531, section 2).

    Args:
        student_logits: [batch, classes], unnormalised.
        teacher_logits: [batch, classes], unnormalised, detached.
        temperature: T > 0; divides both logits.
    """
    from torch.nn.functional import kl_div, log_softmax

    student = log_softmax(student_logits / temperature, dim=-1)
    teacher = log_softmax(teacher_logits / temperature, dim=-1)
    return temperature**2 * kl_div(student, teacher, reduction="batchmean", log_target=True)
