"""Stand-in until the views branch is merged: shift and flip, drawn for (seed, view, row) alone."""

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot, pad

from mobilekd.method import Batch
from mobilekd.training.augmentation import Augmentation
from mobilekd.training.data import Images


class Views:
    """The augmented images of a split."""

    def __init__(
        self,
        images: Images,
        augmentation: Augmentation,
        seed: int,
        device: torch.device = torch.device("cpu"),  # noqa: B008
    ) -> None:
        self._images, self._augmentation, self._seed, self._device = images, augmentation, seed, device
        self._view = -1
        self._drawn = np.zeros((0, 3), np.int64)

    def batch(self, rows: Tensor, view: int, progress: float = 0.0) -> Batch:
        """Return the images of some rows in a view."""
        chosen = rows.numpy()
        largest = self._augmentation.shift_pixels
        if view != self._view:
            rng = np.random.default_rng((self._seed, view, 1))
            self._drawn = rng.integers(0, (2 * largest + 1, 2 * largest + 1, 2), (len(self._images), 3))
            self._view = view
        pixels = torch.from_numpy(self._images.normalized(chosen))
        height, width = pixels.shape[2:]
        padded = pad(pixels, (largest,) * 4, mode="replicate")
        drawn = torch.from_numpy(self._drawn[chosen])
        down, right = drawn[:, :1] + torch.arange(height), drawn[:, 1:2] + torch.arange(width)
        picked = padded.permute(0, 2, 3, 1)[torch.arange(len(rows))[:, None, None], down[:, :, None], right[:, None]]
        moved = picked.permute(0, 3, 1, 2)
        flips = (drawn[:, 2] == 1)[:, None, None, None] & self._augmentation.flip
        moved = torch.where(flips, moved.flip(3), moved).contiguous(memory_format=torch.channels_last).to(self._device)
        labels = torch.from_numpy(self._images.labels[chosen]).to(self._device)
        targets = one_hot(labels, len(self._images.facts.classes)).float()
        return Batch(moved, labels, targets, rows.to(self._device), view, progress)
