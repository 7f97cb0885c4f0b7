"""Contrastive representation distillation (Tian et al. 2020, https://arxiv.org/abs/1910.10699)."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from mobilekd.method import Batch, Method, Outputs, Reads, Sizes

if TYPE_CHECKING:
    from torch import Tensor, nn


class Crd(Method):
    """Noise-contrastive loss between embeddings: an image's own answer of the other network against other images'.

    Each network has a linear head to `width` and a memory of all training images (its embeddings of length 1, a moving
    average). With h = exp(a · b / temperature) / Z and m = negatives / images, both networks in turn as the anchor give
    - log(h⁺ / (h⁺ + m)) - Σ log(m / (h⁻ + m)), averaged over the batch (equations 17 to 19). The first batch sets Z.

    Negatives are drawn once for a batch, not once for an image as in the authors' code: the products become one matrix
    product. The image itself among them does not count. They depend on the images and the view, so that a step
    repeats exactly. Both memories live in the adapters, and in checkpoints with them.

    Attributes:
        width: Of the heads; 128 in the paper.
        negatives: At most as many as there are training images; 16,384 in the paper.
        contrast_temperature: 0.07 in the authors' code.
        momentum: Of the memories; 0.5 in the authors' code.
        weight: 0.8 in the authors' runs.
    """

    reads: ClassVar[frozenset[Reads]] = frozenset({"embedding"})

    width: int = Field(default=128, ge=1)
    negatives: int = Field(default=16384, ge=1)
    contrast_temperature: float = Field(default=0.07, gt=0)
    momentum: float = Field(default=0.5, ge=0, lt=1)
    weight: float = Field(default=0.8, ge=0)

    def adapters(self, student: Outputs, teacher: Outputs, sizes: Sizes) -> "nn.Module | None":
        """Return both heads, both memories, and Z of both."""
        import torch
        from torch import nn
        from torch.nn.functional import normalize

        module = nn.Module()
        for name, outputs in (("student", student), ("teacher", teacher)):
            module.add_module(f"{name}_head", nn.Linear(outputs.embedded().shape[1], self.width))
            memory = normalize(torch.randn(sizes.train_images, self.width), dim=1)
            module.register_buffer(f"{name}_memory", memory)
            module.register_buffer(f"{name}_z", torch.zeros(()))
        return module

    def terms(
        self, student: Outputs, teacher: Outputs, batch: Batch, adapters: "nn.Module | None"
    ) -> "Mapping[str, Tensor]":
        """Return "contrast", and renew the memories of the batch's images."""
        import torch
        from torch.nn.functional import normalize

        heads: Any = adapters
        ours = normalize(heads.student_head(student.embedded().float()).float(), dim=1)
        theirs = normalize(heads.teacher_head(teacher.embedded().detach().float()).float(), dim=1)
        others = _negatives(batch, len(heads.student_memory), self.negatives)
        loss = self._contrast(ours, "teacher", batch, others, heads)
        loss = loss + self._contrast(theirs, "student", batch, others, heads)
        if torch.is_grad_enabled():
            with torch.no_grad():
                for name, embedding in (("student", ours), ("teacher", theirs)):
                    memory = getattr(heads, f"{name}_memory")
                    old = memory[batch.rows]
                    memory[batch.rows] = normalize(self.momentum * old + (1 - self.momentum) * embedding, dim=1)
        return {"contrast": loss}

    def _contrast(self, anchor: "Tensor", other: str, batch: Batch, others: "Tensor", heads: Any) -> "Tensor":
        import torch

        memory, z = getattr(heads, f"{other}_memory"), getattr(heads, f"{other}_z")
        # Copies: the memories change before the backward pass reads them.
        positive = (anchor * memory[batch.rows].clone()).sum(dim=1)
        negative = anchor @ memory[others].T
        is_other = others[None] != batch.rows[:, None]
        images = len(memory)
        raised = (negative.detach() / self.contrast_temperature).exp()
        if z == 0:
            z.copy_(raised.mean() * images)
        share = len(others) / images
        own = (positive / self.contrast_temperature).exp() / z
        foreign = (negative / self.contrast_temperature).exp() / z
        attracted = torch.log(own / (own + share))
        repelled = torch.where(is_other, torch.log(share / (foreign + share)), 0.0).sum(dim=1)
        return -(attracted + repelled).mean()


def _negatives(batch: Batch, images: int, count: int) -> "Tensor":
    """Return numbers of images, int64 [count], the same for the same batch and view."""
    import torch

    seed = int((batch.rows * (batch.rows + 7919)).sum().item())  # alike for any order of the images
    generator = torch.Generator().manual_seed(seed + 1_000_003 * batch.view)
    return torch.randint(0, images, (min(count, images),), generator=generator).to(batch.rows.device)
