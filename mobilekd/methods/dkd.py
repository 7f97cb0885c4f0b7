"""Decoupled knowledge distillation (Zhao et al. 2022, https://arxiv.org/abs/2203.08679)."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pydantic import Field

from mobilekd.method import Batch, Method, Outputs
from mobilekd.methods._features import fixed

if TYPE_CHECKING:
    from torch import Tensor, nn


class Dkd(Method):
    """T² · (alpha · KL over {label, other} + beta · KL over the other classes).

    With beta = 1 - teacher_T[label] for every image this is `kd`; a constant
    beta keeps the second part for images that the teacher is sure of.
    Where images are mixed, the label is that of the image in `Batch.rows`.

    Attributes:
        temperature: T > 0; divides both logits. 4 on CIFAR-100, 1 on ImageNet.
        alpha: Of "target".
        beta: Of "non_target". The authors have 2 to 8 on CIFAR-100, by the pair, and 0.5 and 2 on ImageNet. On CIFAR-10
            8 drowned the labels: ResNet-8 ended below the student alone, and with 1 above `kd`
            (docs/results/distillation.md). So the default is 1; raise it for a teacher that is sure of many classes.
        ramp: The paper raises the weight over the first 20 of 240 epochs.
    """

    temperature: float = Field(default=4.0, gt=0)
    alpha: float = Field(default=1.0, ge=0)
    beta: float = Field(default=1.0, ge=0)
    ramp: float = Field(default=0.083, ge=0, le=1)

    def terms(
        self, student: Outputs, teacher: Outputs, batch: Batch, adapters: "nn.Module | None"
    ) -> "Mapping[str, Tensor]":
        """Return "target" and "non_target", times alpha and beta."""
        del adapters
        target, others = decoupled_kl(student.logits.float(), fixed(teacher.logits), batch.labels, self.temperature)
        return {"target": self.alpha * target, "non_target": self.beta * others}


def decoupled_kl(
    student_logits: "Tensor", teacher_logits: "Tensor", labels: "Tensor", temperature: float
) -> "tuple[Tensor, Tensor]":
    """Return T² · KL over {label, other}, and T² · KL over the other classes, in nats, averaged over the batch; 0-d.

    Args:
        student_logits: [batch, classes], unnormalised; 2 classes or more.
        teacher_logits: [batch, classes], unnormalised, detached.
        labels: int64 [batch].
        temperature: T > 0; divides both logits.
    """
    from torch.nn.functional import kl_div

    student, student_others = _log_shares(student_logits / temperature, labels)
    teacher, teacher_others = _log_shares(teacher_logits / temperature, labels)
    return (
        temperature**2 * kl_div(student, teacher, reduction="batchmean", log_target=True),
        temperature**2 * kl_div(student_others, teacher_others, reduction="batchmean", log_target=True),
    )


def _log_shares(logits: "Tensor", labels: "Tensor") -> "tuple[Tensor, Tensor]":
    """Return log p of [batch, {label, other}], and log p of [batch, classes - 1] given that it is not the label."""
    import torch

    label = labels[:, None]
    # Columns 0..classes-2, those from the label on moved by one: all but the label, in order, without a mask whose
    # size the device would have to tell the host.
    columns = torch.arange(logits.shape[1] - 1, device=logits.device)
    others = logits.gather(1, columns + (columns >= label))
    rest = others.logsumexp(1, keepdim=True)
    pair = torch.cat([logits.gather(1, label), rest], dim=1)
    return pair.log_softmax(1), others - rest
