"""Decoupled knowledge distillation (Zhao et al. 2022, https://arxiv.org/abs/2203.08679)."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pydantic import Field

from mobilekd.method import Batch, Method, Outputs

if TYPE_CHECKING:
    from torch import Tensor, nn


class Dkd(Method):
    """T² · (alpha · TCKD + beta · NCKD), in nats, averaged over the batch (equation 7).

    KD is TCKD + (1 - p_target of the teacher) · NCKD: a teacher that is sure of an image takes the weight away from
    what it knows of the other classes. DKD gives that part a weight of its own. The paper multiplies by
    min(epoch / 20, 1): `ramp`.

    Attributes:
        temperature: T > 0; divides both logits.
        alpha: Of the term of the label against all others; 1 in the paper.
        beta: Of the term among the others; 8 for most pairs of the paper, 2 to 10.
    """

    temperature: float = Field(default=4.0, gt=0)
    alpha: float = Field(default=1.0, ge=0)
    beta: float = Field(default=8.0, ge=0)

    def terms(
        self, student: Outputs, teacher: Outputs, batch: Batch, adapters: "nn.Module | None"
    ) -> "Mapping[str, Tensor]":
        """Return "target" and "non_target"."""
        del adapters
        target, rest = decoupled_kl(student.logits, teacher.logits.detach(), batch.labels, self.temperature)
        return {"target": self.alpha * target, "non_target": self.beta * rest}


def decoupled_kl(
    student_logits: "Tensor", teacher_logits: "Tensor", labels: "Tensor", temperature: float
) -> "tuple[Tensor, Tensor]":
    """Return T² · TCKD and T² · NCKD, each 0-d.

    TCKD is KL between (p_label, 1 - p_label) of both; NCKD is KL between the softmax of both without the label.

    Args:
        student_logits: [batch, classes], unnormalised.
        teacher_logits: [batch, classes], unnormalised, detached.
        labels: int64 [batch].
        temperature: T > 0; divides both logits.
    """
    import torch
    from torch.nn.functional import kl_div, log_softmax, one_hot

    is_label = one_hot(labels, student_logits.shape[1]).bool()

    def parts(logits: "Tensor") -> "tuple[Tensor, Tensor]":
        logs = log_softmax(logits.float() / temperature, dim=1)
        label = logs[is_label]
        others = logs.masked_select(~is_label).reshape(len(logs), -1)
        return torch.stack([label, others.logsumexp(1)], dim=1), log_softmax(others, dim=1)

    (student_pair, student_rest), (teacher_pair, teacher_rest) = parts(student_logits), parts(teacher_logits)
    target = kl_div(student_pair, teacher_pair, reduction="batchmean", log_target=True)
    rest = kl_div(student_rest, teacher_rest, reduction="batchmean", log_target=True)
    return temperature**2 * target, temperature**2 * rest
