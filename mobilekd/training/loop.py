"""The one training loop: every step depends on the seed and its number alone, so a resumed run equals a whole one."""

import functools
import math
import os
import pickle
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor, nn

from mobilekd.errors import StageError
from mobilekd.stage import Bar, Progress
from mobilekd.training.augmentation import random_flip, random_shift
from mobilekd.training.data import Images

_CHECKPOINT_EVERY_S = 10.0

Loss = Callable[[Tensor, Tensor], Mapping[str, Tensor]]
"""Normalised images [batch, c, h, w] and labels [batch] -> named, weighted terms, each 0-d."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to train.

    Attributes:
        epochs, batch_size: The last, smaller batch of an epoch is left out.
        learning_rate: Peak; warmed up over the first tenth of the steps, then cosine to 0.
        optimizer: "adamw", or "sgd" with Nesterov momentum 0.9.
        shift_pixels, flip: Augmentation.
        threads: CPU threads. An option because sums over other numbers of threads round differently.
        seed: Of shuffling and augmentation.
        train_images: Images of an epoch, another random part in each; 0 means all.
        ema: Decay of a moving average of the parameters, which the network has at the end; 0 switches it off.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    optimizer: Literal["adamw", "sgd"]
    shift_pixels: int
    flip: bool
    threads: int
    seed: int
    train_images: int = 0
    ema: float = 0.0

    def steps_per_epoch(self, images: int) -> int:
        """Return the batches of an epoch over a split of so many images; at least 1."""
        return max(1, min(images, self.train_images or images) // self.batch_size)


@dataclass(frozen=True, slots=True)
class Run:
    """What a training run works on: a network, its loss and data, where to resume, how to show progress."""

    title: str
    network: nn.Module
    loss: Loss
    train: Images
    validation: Images
    checkpoint: Path
    progress: Progress
    in_train_mode: bool = True
    """False keeps the network in evaluation mode: an exported QAT graph has its BatchNorm folded."""


History = list[dict[str, float]]


def fit(run: Run, recipe: Recipe) -> History:
    """Train in place and return one record an epoch: epoch, lr, loss, each term, top1 on validation.

    Raises:
        StageError: The loss is not finite.
    """
    torch.set_num_threads(recipe.threads)
    steps_per_epoch = recipe.steps_per_epoch(len(run.train))
    optimizer = _optimizer(run.network, recipe)
    average = _Average(run.network, recipe.ema)
    step, history = _resume(run, optimizer, average)
    last_saved_s = time.monotonic()
    with run.progress.bar(run.title, recipe.epochs * steps_per_epoch) as bar:
        bar.advance(step)
        while step < recipe.epochs * steps_per_epoch:
            epoch, index = divmod(step, steps_per_epoch)
            if index == 0:
                history.append({"epoch": float(epoch + 1), "loss": 0.0})
            _train_step(run, recipe, optimizer, (epoch, index), history[-1])
            average.update()
            step += 1
            if index == steps_per_epoch - 1:
                _close_epoch(run, recipe, history[-1], steps_per_epoch, bar)
            bar.advance(1)
            if time.monotonic() - last_saved_s > _CHECKPOINT_EVERY_S:
                _save(run, optimizer, average, step, history)
                last_saved_s = time.monotonic()
    _save(run, optimizer, average, step, history)
    average.take_over()
    return history


class _Average:
    """A moving average of a network's trained parameters (EMA); with decay 0 it keeps nothing."""

    def __init__(self, network: nn.Module, decay: float) -> None:
        self._decay = decay
        self._parameters = [one for one in network.parameters() if one.requires_grad] if decay else []
        self.values = [one.detach().clone() for one in self._parameters]

    def update(self) -> None:
        for value, parameter in zip(self.values, self._parameters, strict=True):
            value.lerp_(parameter.detach(), 1 - self._decay)

    def load(self, values: list[Tensor]) -> None:
        for value, saved in zip(self.values, values, strict=True):
            value.copy_(saved)

    def take_over(self) -> None:
        """Put the average in the place of the parameters."""
        with torch.no_grad():
            for value, parameter in zip(self.values, self._parameters, strict=True):
                parameter.copy_(value)


def _train_step(
    run: Run, recipe: Recipe, optimizer: torch.optim.Optimizer, position: tuple[int, int], record: dict[str, float]
) -> None:
    epoch, index = position
    run.network.train(run.in_train_mode)
    order = epoch_order(len(run.train), recipe.seed, epoch)
    rows = order[index * recipe.batch_size : (index + 1) * recipe.batch_size]
    generator = _generator(recipe.seed, epoch, index)
    images = augment(torch.from_numpy(run.train.normalized(rows)), recipe, generator)
    labels = torch.from_numpy(run.train.labels[rows])
    steps_per_epoch = recipe.steps_per_epoch(len(run.train))
    progress = (epoch * steps_per_epoch + index) / (recipe.epochs * steps_per_epoch)
    for group in optimizer.param_groups:
        group["lr"] = recipe.learning_rate * lr_factor(progress)
    terms = run.loss(images, labels)
    loss = torch.stack(tuple(terms.values())).sum()
    if not torch.isfinite(loss):
        named = ", ".join(f"{name} {value.item():.3g}" for name, value in terms.items())
        raise StageError(
            f"{run.title}: the loss is not finite in epoch {epoch + 1}, batch {index + 1} ({named})",
            hint=f"lower the learning rate ({recipe.learning_rate})",
        )
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    record["lr"] = recipe.learning_rate * lr_factor(progress)
    record["loss"] += loss.item()
    for name, value in terms.items():
        record[name] = record.get(name, 0.0) + value.item()


def _close_epoch(run: Run, recipe: Recipe, record: dict[str, float], steps: int, bar: Bar) -> None:
    for name in record.keys() - {"epoch", "lr"}:
        record[name] /= steps
    logits = predict(run.network, run.validation, recipe.batch_size)
    record["top1"] = top1(logits, run.validation.labels)
    bar.advance(0, f"loss {record['loss']:.3f}  top-1 {record['top1']:.2%}")


def augment(images: Tensor, recipe: Recipe, generator: Generator) -> Tensor:
    """Return the batch as a step sees it, in channels-last memory; [batch, channels, height, width]."""
    moved = random_shift(images, recipe.shift_pixels, generator)
    moved = random_flip(moved, generator) if recipe.flip else moved
    return moved.contiguous(memory_format=torch.channels_last)


@functools.lru_cache(maxsize=1)  # every step of an epoch asks for it
def epoch_order(images: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Return the order of the images in an epoch: a permutation that depends on seed and epoch alone."""
    return np.random.default_rng((seed, epoch)).permutation(images)


def _generator(seed: int, epoch: int, index: int) -> Generator:
    state = np.random.SeedSequence((seed, epoch, index)).generate_state(1, np.uint64)[0]
    torch.manual_seed(int(state >> np.uint64(1)))  # dropout and stochastic depth draw from the global generator
    return Generator().manual_seed(int(state >> np.uint64(1)))


def lr_factor(progress: float, warmup: float = 0.1) -> float:
    """Return the share of the peak learning rate at a point of the run in [0, 1]: linear warm-up, then cosine.

    Example:
        >>> [round(lr_factor(point), 3) for point in (0.0, 0.05, 0.1, 0.55, 1.0)]
        [0.02, 0.51, 1.0, 0.5, 0.0]
    """
    if progress < warmup:
        return 0.02 + 0.98 * progress / warmup
    return 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))


def predict(network: nn.Module, images: Images, batch_size: int = 128) -> NDArray[np.float32]:
    """Return logits float32 [n, classes] of a whole split, in evaluation mode."""
    network.eval()
    with torch.no_grad():
        parts = [
            network(torch.from_numpy(batch).contiguous(memory_format=torch.channels_last)).float().numpy()
            for batch in images.batches(batch_size)
        ]
    return np.concatenate(parts)


def top1(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Return the share of images whose largest logit is their label's, 0 to 1."""
    return float((logits.argmax(axis=1) == labels).mean())


def _optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    # Biases, BatchNorm and other vectors are not decayed: decay would pull scales to 0, not complexity.
    parameters = [one for one in network.parameters() if one.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [one for one in parameters if one.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [one for one in parameters if one.ndim <= 1], "weight_decay": 0.0},
    ]
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=recipe.learning_rate)
    return torch.optim.SGD(groups, lr=recipe.learning_rate, momentum=0.9, nesterov=True)


def _save(run: Run, optimizer: torch.optim.Optimizer, average: _Average, step: int, history: History) -> None:
    state = {
        "step": step,
        "history": history,
        "network": run.network.state_dict(),
        "optimizer": optimizer.state_dict(),
        "average": average.values,
    }
    beside = run.checkpoint.with_suffix(".tmp")
    torch.save(state, beside)
    os.replace(beside, run.checkpoint)  # noqa: PTH105 - named for what matters: the switch is atomic


def _resume(run: Run, optimizer: torch.optim.Optimizer, average: _Average) -> tuple[int, History]:
    if not run.checkpoint.is_file():
        return 0, []
    try:
        state = torch.load(run.checkpoint, weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError):  # cut off by a crash of the machine: train again
        run.progress.say(f"{run.title}: the checkpoint {run.checkpoint} is damaged; starting again")
        return 0, []
    if "average" not in state:
        run.progress.say(f"{run.title}: the checkpoint {run.checkpoint} is of an older version; starting again")
        return 0, []
    run.network.load_state_dict(state["network"])
    optimizer.load_state_dict(state["optimizer"])
    average.load(state["average"])
    if state["step"]:
        run.progress.say(f"{run.title}: going on from step {state['step']}")
    return int(state["step"]), list(state["history"])
