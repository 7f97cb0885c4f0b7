"""The optimizer, and the moving average of a network."""

from collections.abc import Iterator, Mapping, Sequence
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
    """A moving average (EMA) of parameters and of BatchNorm's statistics; with decay 0 it keeps nothing.

    Update t, from 0, keeps min(decay, (1 + t) / (10 + t)) of a value, as TensorFlow's ExponentialMovingAverage does
    when it is told the number of updates (https://www.tensorflow.org/api_docs/python/tf/train/ExponentialMovingAverage):
    with 0.999 alone a run of 100 steps would end with 90 % of the weights that it began with. The statistics are
    averaged because those of the weights of the last step do not fit the averaged weights.
    """

    def __init__(self, tensors: Sequence[Tensor], decay: float) -> None:
        """Begin at the tensors as they are: the parameters, and the statistics that belong to them."""
        self._decay, self._updates = decay, 0
        self._tensors = [one.detach() for one in tensors] if decay else []
        self._values = [one.clone() for one in self._tensors]

    def update(self) -> None:
        """Move each value towards its tensor."""
        if self._values:
            kept = min(self._decay, (1 + self._updates) / (10 + self._updates))
            torch._foreach_lerp_(self._values, self._tensors, 1 - kept)
            self._updates += 1

    def state(self) -> dict[str, Any]:
        """Return what the next update depends on."""
        return {"values": self._values, "updates": self._updates}

    def load(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` returned."""
        self._updates = state["updates"]
        _copy(state["values"], self._values)

    def take_over(self) -> None:
        """Put the average in the place of the tensors."""
        _copy(self._values, self._tensors)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Put the average in the place of the tensors while the context is open."""
        own = [one.clone() for one in self._tensors]
        self.take_over()
        try:
            yield
        finally:
            _copy(own, self._tensors)


def _copy(sources: Sequence[Tensor], targets: Sequence[Tensor]) -> None:
    for source, target in zip(sources, targets, strict=True):
        target.copy_(source)
