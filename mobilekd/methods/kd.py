"""Knowledge distillation from softened logits (Hinton et al. 2015, https://arxiv.org/abs/1503.02531)."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pydantic import Field

from mobilekd.method import Batch, Method, Outputs
from mobilekd.methods._features import fixed

if TYPE_CHECKING:
    from torch import Tensor, nn


class Kd(Method):
    """T² · KL(teacher_T ‖ student_T).

    Attributes:
        temperature: T > 0; divides both logits. 2 to 5 is usual.
    """

    temperature: float = Field(default=4.0, gt=0)

    def terms(
        self, student: Outputs, teacher: Outputs, batch: Batch, adapters: "nn.Module | None"
    ) -> "Mapping[str, Tensor]":
        """Return "soft"."""
        del batch, adapters
        return {"soft": softened_kl(student.logits.float(), fixed(teacher.logits), self.temperature)}


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
