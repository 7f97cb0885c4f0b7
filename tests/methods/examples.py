"""Outputs and batches to try a method on."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mobilekd.method import Batch, Outputs, Sizes

SIZES = Sizes(train_images=20, classes=3)


def batch(images: int = 4, *, labels: Sequence[int] | None = None, rows: Sequence[int] | None = None) -> Batch:
    """Return a batch whose labels and rows count up unless they are given."""
    of_class = torch.tensor(labels if labels is not None else [image % 3 for image in range(images)])
    numbers = torch.tensor(rows if rows is not None else range(len(of_class)))
    pixels = torch.zeros(len(of_class), 3, 8, 8)
    return Batch(pixels, of_class, nn.functional.one_hot(of_class, 3).float(), numbers)


def outputs(seed: int, *, images: int = 4, channels: int = 2, height: int = 8, width: int = 5) -> Outputs:
    """Return leaves that want a gradient: three stages that halve, as `channels` doubles, and an embedding."""
    source = torch.Generator().manual_seed(seed)
    stages = tuple(
        torch.randn(images, channels << stage, height >> stage, height >> stage, generator=source).requires_grad_()
        for stage in range(3)
    )
    logits = torch.randn(images, 3, generator=source).requires_grad_()
    return Outputs(logits, stages, torch.randn(images, width, generator=source).requires_grad_())


def staged(*stages: Tensor) -> Outputs:
    """Return outputs that hold stages alone."""
    return Outputs(torch.zeros(len(stages[0]), 3), stages)


def embedded(embedding: Tensor) -> Outputs:
    """Return outputs that hold an embedding alone."""
    return Outputs(torch.zeros(len(embedding), 3), (), embedding)


def tensors(outputs: Outputs) -> list[Tensor]:
    """Return all that a network gave."""
    return [outputs.logits, *outputs.stages, outputs.embedded()]
