"""A tiny task for the loop: images of two classes, a network with BatchNorm and dropout and one without."""

from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import nn

from mobilekd.training.augmentation import Augmentation
from mobilekd.training.data import DatasetFacts, Images
from mobilekd.training.loop import Loss, Recipe, Run

FACTS = DatasetFacts("toy", ("a", "b"), (8, 8), (0.5,) * 3, (0.25,) * 3, "none", {}, "", "")
RECIPE = Recipe(
    epochs=3, batch_size=8, learning_rate=0.01, weight_decay=0.01, optimizer="adamw",
    augmentation=Augmentation(shift_pixels=1, flip=True), threads=1, seed=7,
)  # fmt: skip


class Killed(BaseException):
    """Stands in for SIGKILL: nothing catches it."""


class Quiet:
    """Keeps what is said; dies at a given step."""

    def __init__(self, die_at: int | None = None) -> None:
        self.steps, self.die_at = 0, die_at
        self.lines: list[str] = []

    @contextmanager
    def bar(self, title, total):
        yield self

    def advance(self, steps=1, note=""):
        self.steps += steps
        if self.die_at is not None and self.steps >= self.die_at:
            raise Killed

    def say(self, line):
        self.lines.append(line)


class Noisy(nn.Module):
    """An adapter that is trained and counts its calls in a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.drop = nn.Linear(2, 2), nn.Dropout(0.5)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, logits):
        self.calls += 1
        return self.drop(self.linear(logits))


def images(count: int) -> Images:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    return Images(pixels, (pixels[:, :4].mean(axis=(1, 2, 3)) > 127).astype(np.int64), FACTS)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.2), nn.Flatten(), nn.Linear(144, 2)
    )


def plain_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))


def cross_entropy(model: nn.Module, adapters: nn.Module | None = None) -> Loss:
    def loss(batch):
        logits = model(batch.images)
        hard = {"hard": nn.functional.cross_entropy(logits, batch.labels)}
        return hard | ({"far": 0.1 * adapters(logits).square().mean()} if adapters else {})

    return loss


def run(folder: Path, model: nn.Module, progress: Quiet | None = None, adapters: nn.Module | None = None) -> Run:
    folder.mkdir(exist_ok=True)
    return Run(
        "toy", model, cross_entropy(model, adapters), images(40), images(16), folder / "checkpoint.pt",
        progress or Quiet(), adapters=adapters,
    )  # fmt: skip


def distance(one: nn.Module, other: nn.Module) -> float:
    """Return the largest difference of any tensor of two networks."""
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return max(float((a.double() - b.double()).abs().max()) for a, b in pairs)
