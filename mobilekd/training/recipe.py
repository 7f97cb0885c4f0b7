"""How to train: the options of a run, and the learning rate at each point of it."""

import math
from dataclasses import dataclass, field
from typing import Literal

from mobilekd.training.augmentation import Augmentation

Schedule = Literal["cosine", "step", "onecycle"]

_MILESTONES = (0.625, 0.75, 0.875)  # 150, 180 and 210 of 240 epochs, as the CIFAR-100 distillation papers have it


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to train.

    Attributes:
        epochs: Passes over the training images, or over `train_images` of them.
        batch_size: Images of a step, of all processes and micro-batches together; the last, smaller batch is left out.
        learning_rate: Peak of the schedule; for `base_batch_size` images when that is not 0.
        weight_decay: Of tensors with two axes or more.
        optimizer: "adamw", or "sgd" with Nesterov momentum 0.9.
        threads: CPU threads. An option because sums over other numbers of threads round differently.
        seed: Of new weights, shuffling, dropout and, without `views`, augmentation.
        train_images: Images of an epoch, another random part in each; 0 means all.
        ema: Decay of a moving average of the network, which is validated and stays at the end; 0: none. Smaller in
            the first steps: see `optimization.Average`.
        schedule: Of the learning rate, after `warmup`: "cosine" falls to 0; "step" falls to a tenth at 0.625, 0.75 and
            0.875 of the run; "onecycle" rises along a cosine too, from 0.04, and falls to 4e-6.
        warmup: Share of the run over which the learning rate rises to its peak.
        base_batch_size: The learning rate is multiplied by the images of a batch / base_batch_size; 0 leaves it
            (Goyal et al. 2017, https://arxiv.org/abs/1706.02677, section 2.1).
        accumulation: Micro-batches that a batch is split into, to save memory. The batch stays `batch_size` images,
            where elsewhere the word multiplies it.
        precision: Of the forward pass, by autocast; parameters and optimizer stay fp32. "fp16" needs CUDA.
        compile: torch.compile of the network.
        patience: Stop after so many epochs without a better validation top-1 and keep the best weights; 0: never.
        views: An epoch e sees view e % views of each image, the same for all seeds; 0: each epoch is a view of its own.
        sampling: "shuffled" visits each image once; "balanced" draws each class equally often.
        augmentation: What a view does to an image.
        device: "auto" is CUDA where there is one.
        workers: Threads that prepare the next batches, one each; with 0 it is one on CUDA and none on the CPU.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    optimizer: Literal["adamw", "sgd"]
    threads: int
    seed: int
    train_images: int = 0
    ema: float = 0.0
    schedule: Schedule = "cosine"
    warmup: float = 0.1
    base_batch_size: int = 0
    accumulation: int = 1
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    compile: bool = False
    patience: int = 0
    views: int = 0
    sampling: Literal["shuffled", "balanced"] = "shuffled"
    augmentation: Augmentation = field(default_factory=Augmentation)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    workers: int = 0

    @property
    def view_seed(self) -> int:
        """Return the seed of augmentation: with a fixed number of views 0, so that runs share a teacher's answers."""
        return 0 if self.views else self.seed

    def steps_per_epoch(self, images: int) -> int:
        """Return the batches of an epoch over a split of so many images; at least 1."""
        return max(1, min(images, self.train_images or images) // self.batch_size)

    def batch_images(self, images: int) -> int:
        """Return the images of a batch: a split smaller than a batch is one batch."""
        return min(images, self.train_images or images, self.batch_size)

    def learning_rate_at(self, progress: float, images: int) -> float:
        """Return the learning rate at a point of the run, 0 to 1, over a split of so many images."""
        scale = self.batch_images(images) / self.base_batch_size if self.base_batch_size else 1.0
        return self.learning_rate * scale * lr_factor(progress, self.warmup, self.schedule)

    def view(self, epoch: int) -> int:
        """Return the view of the images that an epoch, counted from 0, sees."""
        return epoch % self.views if self.views else epoch


def lr_factor(progress: float, warmup: float = 0.1, schedule: Schedule = "cosine") -> float:
    """Return the share of the peak learning rate at a point of the run in [0, 1].

    "cosine" and "step" rise linearly from 0.02 over the first `warmup` of the run. Then "cosine" falls to 0, and "step"
    is 1, 0.1, 0.01, 0.001 from 0, 0.625, 0.75, 0.875 of the run. "onecycle" rises from 0.04 along a cosine and falls to
    4e-6 along another (Smith & Topin 2017, https://arxiv.org/abs/1708.07120; the momentum stays).

    Example:
        >>> [round(lr_factor(point), 3) for point in (0.0, 0.05, 0.1, 0.55, 1.0)]
        [0.02, 0.51, 1.0, 0.5, 0.0]
        >>> [round(lr_factor(point, 0.0, "step"), 3) for point in (0.0, 0.6, 0.63, 0.8, 0.9)]
        [1.0, 1.0, 0.1, 0.01, 0.001]
        >>> [round(lr_factor(point, 0.3, "onecycle"), 3) for point in (0.0, 0.15, 0.3, 0.65, 1.0)]
        [0.04, 0.52, 1.0, 0.5, 0.0]
    """
    rise = progress / warmup if warmup else 1.0
    fallen = 0.5 * (1 - math.cos(math.pi * (progress - warmup) / max(1 - warmup, 1e-12)))
    if schedule == "onecycle":
        if rise < 1:
            return 0.04 + 0.96 * 0.5 * (1 - math.cos(math.pi * rise))
        return 1 - (1 - 4e-6) * fallen
    if rise < 1:
        return 0.02 + 0.98 * rise
    if schedule == "step":
        return float(0.1 ** sum(progress >= one for one in _MILESTONES))
    return 1 - fallen
