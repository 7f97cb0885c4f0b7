"""Contrastive representation distillation (Tian et al. 2020, https://arxiv.org/abs/1910.10699)."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from mobilekd.method import Batch, Method, Outputs, Reads, Sizes
from mobilekd.methods._features import fixed, full_precision

if TYPE_CHECKING:
    from torch import Tensor, nn


class Crd(Method):
    """Noise-contrastive estimation: an image's student embedding is told from those of other images by its teacher's.

    Linear heads bring both embeddings to `width`; a bank for each network
    remembers where every training image was. Banks, labels and constants are
    buffers of the adapters: a check-point holds 2 · images · width · 4 bytes,
    1.3 GB for ImageNet.

    Attributes:
        weight: 0.8 is the paper's.
        width: Of the embeddings that are compared.
        contrast_temperature: Divides their cosines; not that of logits, which a pipeline sets for all methods.
        negatives: Drawn for a step, with replacement, and shared by the images of the batch; the paper draws 16384
            for each image of CIFAR-100.
        momentum: Share of its old place that an image keeps in a bank.
    """

    reads: ClassVar[frozenset[Reads]] = frozenset({"embedding"})

    weight: float = Field(default=0.8, ge=0)
    width: int = Field(default=128, ge=1)
    contrast_temperature: float = Field(default=0.07, gt=0)
    negatives: int = Field(default=4096, ge=1)
    momentum: float = Field(default=0.5, ge=0, lt=1)

    def adapters(self, student: Outputs, teacher: Outputs, sizes: Sizes) -> "nn.Module":
        """Return the heads with the banks."""
        from mobilekd.methods._contrast import Contrast

        return Contrast(
            student_width=student.embedded().shape[1],
            teacher_width=teacher.embedded().shape[1],
            images=sizes.train_images,
            width=self.width,
            temperature=self.contrast_temperature,
            negatives=self.negatives,
            momentum=self.momentum,
        )

    def terms(
        self, student: Outputs, teacher: Outputs, batch: Batch, adapters: "nn.Module | None"
    ) -> "Mapping[str, Tensor]":
        """Return "contrast"; moves the images of the batch in the banks when the adapters are in training mode."""
        assert adapters is not None
        ours, theirs = student.embedded().float(), fixed(teacher.embedded())
        with full_precision(ours):
            return {"contrast": adapters(ours, theirs, batch.rows, batch.labels, batch.view)}
