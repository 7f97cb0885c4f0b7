"""The augmented images of a split: an image and a view give the same pixels, whatever batch they are asked in.

That is what lets a teacher's answer be kept (soft_labels.py), a batch be halved, and processes share a batch.
"""

import functools
import threading

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from mobilekd.method import Batch
from mobilekd.training import randaugment
from mobilekd.training.augmentation import Augmentation, Draws, draw
from mobilekd.training.data import Images

_CPU = torch.device("cpu")


class Views:
    """A split and what augmentation makes of it.

    On a GPU the pixels move there once, as bytes, when they fit in a quarter of its free memory; else they stay where
    they are, on disk, and each batch is read from there.
    """

    def __init__(self, images: Images, augmentation: Augmentation, seed: int, device: torch.device = _CPU) -> None:
        """Open the views of a split.

        Args:
            images: The split.
            augmentation: What a view does.
            seed: Of all that is random in a view.
            device: Where batches are wanted.
        """
        pixels = torch.from_numpy(images.images)
        self._home = device if _fits(pixels, device) else _CPU
        self._pixels = pixels.to(self._home)
        self._labels = torch.from_numpy(images.labels).to(self._home)
        self._classes = len(images.facts.classes)
        self._mean = torch.tensor(images.facts.mean, device=self._home)
        self._std = torch.tensor(images.facts.std, device=self._home)
        self._augmentation, self._seed, self._device = augmentation, seed, device
        self._drawing = threading.Lock()
        self._draws = functools.lru_cache(maxsize=2)(self._drawn)  # threads that prepare batches may be an epoch apart

    def batch(self, rows: Tensor, view: int, progress: float = 0.0) -> Batch:
        """Return some images in a view.

        Args:
            rows: int64 [batch], numbers of the images.
            view: Number of the augmentation, from 0.
            progress: Share of the run that is done, 0 to 1.
        """
        with self._drawing:
            draws = self._draws(view)
        rows = rows.to(self._home)
        images, targets = self._seen(rows, draws), self._targets(rows)
        if self._augmentation.mixes:
            partners = draws.partners[rows]
            images, shares = self._mixed(images, self._seen(partners, draws), rows, draws)
            targets = shares[:, None] * targets + (1 - shares[:, None]) * self._targets(partners)
        images = images.to(self._device).contiguous(memory_format=torch.channels_last)
        labels, targets, rows = (one.to(self._device) for one in (self._labels[rows], targets, rows))
        return Batch(images, labels, targets, rows, view, progress)

    def _drawn(self, view: int) -> Draws:
        drawn = draw(len(self._labels), self._augmentation, self._seed, view)
        return Draws(**{name: getattr(drawn, name).to(self._home) for name in Draws.__slots__})

    def _seen(self, rows: Tensor, draws: Draws) -> Tensor:
        """Return one image a row before mixing: normalised, [batch, channels, height, width]."""
        pixels = self._cropped(rows, draws).float()
        if self._augmentation.randaugment:
            changed = randaugment.apply(pixels.permute(0, 3, 1, 2), draws.operations[rows], draws.strengths[rows])
            pixels = changed.permute(0, 2, 3, 1)
        # The same three operations in the same order as `preprocessing.normalize`, so the same bits.
        images = pixels.div_(255).sub_(self._mean).div_(self._std).permute(0, 3, 1, 2)
        side = self._augmentation.cutout_pixels
        return images.masked_fill(_square(images, draws.holes[rows], side, side), 0.0) if side else images

    def _cropped(self, rows: Tensor, draws: Draws) -> Tensor:
        if not (self._augmentation.shift_pixels or self._augmentation.flip):
            return self._pixels[rows]
        height, width, channels = self._pixels.shape[1:]
        down, right = draws.shifts[rows].unbind(1)
        lines = (torch.arange(height, device=self._home) + down[:, None]).clamp(0, height - 1)
        columns = (torch.arange(width, device=self._home) + right[:, None]).clamp(0, width - 1)
        columns = torch.where(draws.is_flipped[rows, None], columns.flip(1), columns)
        places = (rows[:, None, None] * height + lines[:, :, None]) * width + columns[:, None, :]
        picked = self._pixels.reshape(-1, channels)[places.flatten()]
        return picked.reshape(len(rows), height, width, channels)

    def _targets(self, rows: Tensor) -> Tensor:
        smoothing = self._augmentation.label_smoothing
        hard = one_hot(self._labels[rows], self._classes).float()
        return hard * (1 - smoothing) + smoothing / self._classes if smoothing else hard

    def _mixed(self, images: Tensor, others: Tensor, rows: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        """Return the mixed images, and the share of each that is left, which for a box is its area."""
        shares, is_box = draws.shares[rows], draws.is_box[rows]
        height, width = images.shape[2:]
        cut = (1 - shares).sqrt()
        box = _square(images, draws.boxes[rows], (cut * height).round(), (cut * width).round())
        box_shares = 1 - box.sum(dim=(1, 2, 3)) / (height * width)
        blended = shares[:, None, None, None] * images + (1 - shares[:, None, None, None]) * others
        mixed = torch.where(is_box[:, None, None, None], torch.where(box, others, images), blended)
        return mixed, torch.where(is_box, box_shares, shares)


def _square(images: Tensor, centres: Tensor, height: Tensor | int, width: Tensor | int) -> Tensor:
    """Return where boxes of so many pixels lie, cut at the edges: bool [batch, 1, height, width]."""
    masks = []
    for axis, (side, length) in enumerate(((height, images.shape[2]), (width, images.shape[3]))):
        size = torch.as_tensor(side, device=images.device).expand(len(images))[:, None]
        first = (centres[:, axis : axis + 1] * length).floor() - (size / 2).floor()
        places = torch.arange(length, device=images.device)
        masks.append((places >= first) & (places < first + size))
    return (masks[0][:, :, None] & masks[1][:, None, :])[:, None]


def _fits(pixels: Tensor, device: torch.device) -> bool:
    if device.type != "cuda":
        return True
    free, _ = torch.cuda.mem_get_info(device)
    return pixels.nbytes < free / 4
