"""Outputs and batches for the tests of methods."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from mobilekd.method import Batch, Method, Outputs, Sizes

BATCH, CLASSES, IMAGES = 6, 5, 20


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def outputs(widths: tuple[int, ...] = (4, 6, 8), sizes: tuple[int, ...] = (8, 4, 2), seed: int = 0) -> Outputs:
    pairs = zip(widths, sizes, strict=True)
    stages = tuple(random(BATCH, width, size, size, seed=seed + place) for place, (width, size) in enumerate(pairs))
    return Outputs(random(BATCH, CLASSES, seed=seed), stages, random(BATCH, widths[-1], seed=seed + 9))


def batch() -> Batch:
    labels = torch.arange(BATCH) % CLASSES
    targets = torch.nn.functional.one_hot(labels, CLASSES).float()
    return Batch(torch.zeros(BATCH, 3, 4, 4), labels, targets, torch.arange(BATCH) * 3)


def learning(given: Outputs) -> Outputs:
    """Return the outputs as leaves with gradients."""
    stages = tuple(stage.clone().requires_grad_() for stage in given.stages)
    return Outputs(given.logits.clone().requires_grad_(), stages, given.embedded().clone().requires_grad_())


def loss(method: Method, student: Outputs, teacher: Outputs, adapters: nn.Module | None = None) -> Tensor:
    return torch.stack(tuple(method.terms(student, teacher, batch(), adapters).values())).sum()


def adapters_of(method: Method, student: Outputs, teacher: Outputs) -> nn.Module | None:
    torch.manual_seed(0)
    return method.adapters(student, teacher, Sizes(IMAGES, CLASSES))


def with_logits(given: Outputs, logits: Tensor) -> Outputs:
    return replace(given, logits=logits)
