"""The optimizer, and the moving average of the weights."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from mobilekd.training.recipe import Recipe


def make_optimizer(parameters: Sequence[nn.Parameter], recipe: Recipe) -> torch.optim.Optimizer:
    """Return the recipe's optimizer."""
    # The fused kernels take half the time, but walk a parameter and its gradient by memory and not by index: with other
    # strides they are silently wrong (torch 2.13, CPU). Autograd gives a gradient the strides of a dense parameter.
    fused = all(_is_dense(one) for one in parameters)
    # Biases, BatchNorm and other vectors are not decayed: decay would pull scales to 0, not complexity.
    groups: list[dict[str, Any]] = [
        {"params": [one for one in parameters if one.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [one for one in parameters if one.ndim <= 1], "weight_decay": 0.0},
    ]
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=recipe.learning_rate, fused=fused)
    optimizer = torch.optim.SGD(groups, lr=recipe.learning_rate, momentum=0.9, nesterov=True, fused=fused)
    # A method that starts late leaves its adapters without gradients until then, and the fused kernel refuses a group
    # in which some momenta are there and some are not. From zeros the first step is the one it would have made.
    for one in parameters:
        optimizer.state[one]["momentum_buffer"] = torch.zeros_like(one)
    return optimizer


def _is_dense(one: Tensor) -> bool:
    is_image_like = one.ndim == 4 and one.is_contiguous(memory_format=torch.channels_last)
    return one.is_contiguous() or is_image_like


class Average:
    """A moving average of parameters (EMA); with decay 0 it keeps nothing."""

    def __init__(self, parameters: Sequence[nn.Parameter], decay: float) -> None:
        self._decay = decay
        self._parameters = list(parameters) if decay else []
        self.values = [one.detach().clone() for one in self._parameters]

    @torch.no_grad()
    def update(self) -> None:
        """Move each value by 1 - decay of the way to its parameter."""
        if self.values:
            torch._foreach_lerp_(self.values, list[Tensor](self._parameters), 1 - self._decay)

    def load(self, values: Sequence[Tensor]) -> None:
        """Take over saved values."""
        for value, saved in zip(self.values, values, strict=True):
            value.copy_(saved)

    @torch.no_grad()
    def take_over(self) -> None:
        """Put the average in the place of the parameters."""
        for value, parameter in zip(self.values, self._parameters, strict=True):
            parameter.copy_(value)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Put the average in the place of the parameters while the context is open."""
        own = [one.detach().clone() for one in self._parameters]
        self.take_over()
        try:
            yield
        finally:
            with torch.no_grad():
                for value, parameter in zip(own, self._parameters, strict=True):
                    parameter.copy_(value)
