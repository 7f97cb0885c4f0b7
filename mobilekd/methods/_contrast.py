"""The heads and banks of `crd`; imports torch, so it is imported when they are built."""

import math
import zlib

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid, normalize


class Contrast(nn.Module):
    """The contrastive loss of Tian et al. 2020 (https://arxiv.org/abs/1910.10699), both ways round.

    A batch's student embeddings are compared with the teacher's bank, and its
    teacher embeddings with the student's bank. Everything that a step changes
    is a buffer or a parameter, so a resumed run goes on as it would have.
    """

    student_bank: Tensor
    teacher_bank: Tensor
    labels: Tensor
    log_constants: Tensor

    def __init__(
        self,
        *,
        student_width: int,
        teacher_width: int,
        images: int,
        width: int,
        temperature: float,
        negatives: int,
        momentum: float,
    ) -> None:
        super().__init__()
        self.student_head = nn.Linear(student_width, width)
        self.teacher_head = nn.Linear(teacher_width, width)
        self.temperature, self.negatives, self.momentum = temperature, negatives, momentum
        self.register_buffer("student_bank", normalize(torch.randn(images, width), dim=1))
        self.register_buffer("teacher_bank", normalize(torch.randn(images, width), dim=1))
        # -1 until an image is seen: then its place in the banks is random, so it is a negative of every class.
        self.register_buffer("labels", torch.full((images,), -1))
        # log Z of the student's and of the teacher's side; nan until the first batch has given them.
        self.register_buffer("log_constants", torch.full((2,), math.nan))

    def forward(self, student: Tensor, teacher: Tensor, rows: Tensor, labels: Tensor, view: int) -> Tensor:
        """Return the loss in nats, averaged over the batch; 0-d.

        Args:
            student: [batch, student width], float32.
            teacher: [batch, teacher width], float32, detached.
            rows: int64 [batch], numbers of the images.
            labels: int64 [batch]; images of the same class are not negatives of each other.
            view: Number of the augmentation; with `rows` it decides which negatives are drawn.
        """
        ours, theirs = normalize(self.student_head(student), dim=1), normalize(self.teacher_head(teacher), dim=1)
        others = drawn(rows, view, self.negatives, len(self.labels))
        if self.training:
            self.labels[rows] = labels
        counts = (self.labels[others] != labels[:, None]).float()
        loss = self._side(0, ours, self.teacher_bank[rows], self.teacher_bank[others], counts)
        loss = loss + self._side(1, theirs, self.student_bank[rows], self.student_bank[others], counts)
        if self.training:
            self._move(self.student_bank, rows, ours.detach())
            self._move(self.teacher_bank, rows, theirs.detach())
        return loss

    def _side(self, side: int, anchors: Tensor, positives: Tensor, negatives: Tensor, counts: Tensor) -> Tensor:
        """Return the loss of one network's embeddings against the other's bank.

        h = P / (P + k/n) with P = exp(cosine / T) / Z: a sigmoid of log P - log(k/n), so no epsilon is needed.
        """
        pairs = (anchors * positives).sum(1, keepdim=True) / self.temperature
        rest = anchors @ negatives.T / self.temperature
        images = len(self.labels)
        log_z = self._log_constant(side, torch.cat([pairs, rest], dim=1).detach(), images)
        noise = math.log(self.negatives / images)
        kept = logsigmoid(pairs - log_z - noise).squeeze(1)
        refused = (logsigmoid(noise + log_z - rest) * counts).sum(1)
        # Negatives of the same class are left out; the others stand in for them, so that k negatives count.
        refused = refused * self.negatives / counts.sum(1).clamp_min(1)
        return -(kept + refused).mean()

    def _log_constant(self, side: int, exponents: Tensor, images: int) -> Tensor:
        """Return log Z = log(images · mean exp), estimated once, from the first batch in training."""
        estimate = exponents.logsumexp((0, 1)) - math.log(exponents.numel()) + math.log(images)
        known = self.log_constants[side].clone()
        log_z = torch.where(known.isnan(), estimate, known)
        if self.training:
            self.log_constants[side] = log_z
        return log_z

    @torch.no_grad()
    def _move(self, bank: Tensor, rows: Tensor, places: Tensor) -> None:
        bank[rows] = normalize(self.momentum * bank[rows] + (1 - self.momentum) * places, dim=1)


def drawn(rows: Tensor, view: int, count: int, images: int) -> Tensor:
    """Return the numbers of `count` images, drawn with replacement; int64 [count] on the device of `rows`.

    They depend on `rows` and `view` alone, on every device, so that a step
    that is done again draws them again.
    """
    known = zlib.crc32(repr((view, rows.tolist())).encode())
    return torch.randint(images, (count,), generator=torch.Generator().manual_seed(known)).to(rows.device)
