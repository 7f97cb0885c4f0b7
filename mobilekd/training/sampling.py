"""Which training images an epoch has, and in which order."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Sampling = Literal["shuffled", "balanced"]


def epoch_rows(
    labels: NDArray[np.int64], seed: int, epoch: int, train_images: int, sampling: Sampling
) -> NDArray[np.int64]:
    """Return the rows of an epoch; they depend on the arguments alone.

    Args:
        labels: Of the training split, [images].
        seed: Of the run.
        epoch: From 0.
        train_images: Rows to return, another random part in each epoch; 0, or more than there are, means all.
        sampling: "shuffled" takes each image at most once. "balanced" takes each class equally often, to within one:
            images of a small class come several times, in turn, and some of a large class are left out.
    """
    rng = np.random.default_rng((seed, epoch))
    length = min(train_images or len(labels), len(labels))
    if sampling == "shuffled":
        return rng.permutation(len(labels))[:length]
    classes = rng.permutation(np.unique(labels))  # the first ones get what does not divide
    shares = [length // len(classes) + (index < length % len(classes)) for index in range(len(classes))]
    picked = [
        _in_turn(np.flatnonzero(labels == label), share, rng) for label, share in zip(classes, shares, strict=True)
    ]
    return rng.permutation(np.concatenate(picked))


def _in_turn(rows: NDArray[np.int64], count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return so many of the rows; none comes once more than another before all have come as often."""
    rounds = [rng.permutation(rows) for _ in range(-(-count // len(rows)))]
    return np.concatenate([np.zeros(0, np.int64), *rounds])[:count]
