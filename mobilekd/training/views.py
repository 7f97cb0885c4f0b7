"""Augmented batches whose pixels depend on seed, view and image alone, never on the batch an image is in."""

import warnings
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mobilekd.method import Batch
from mobilekd.training import randaugment
from mobilekd.training.augmentation import Augmentation, cut_mix, cut_out, mix_up, soft_targets
from mobilekd.training.data import Images


@dataclass(frozen=True, slots=True)
class _Choices:
    """The random choices of all images in one view; [images] each unless said otherwise.

    Attributes:
        down, right: Shift in pixels.
        is_mirrored: bool.
        hole: Box of cutout, [images, 4]: top, bottom, left, right.
        operations, signs: Of RandAugment, [images, operations].
        matrices: What RandAugment moves, [images, 2, 3].
        partner: Image to mix in.
        blend: Share of the image itself in mixup; 1 where the partner is pasted.
        box: What is pasted, [images, 4]; empty where the partner is blended.
        share: Share of the image itself in the target.
    """

    down: Tensor
    right: Tensor
    is_mirrored: Tensor
    hole: Tensor
    operations: Tensor
    signs: Tensor
    matrices: Tensor
    partner: Tensor
    blend: Tensor
    box: Tensor
    share: Tensor

    def of(self, rows: Tensor) -> "_Choices":
        return _Choices(*(getattr(self, one.name)[rows] for one in fields(self)))


class Views:
    """A split as training sees it.

    Args:
        images: The split; its uint8 pixels stay in the memory map.
        augmentation: What may happen to them.
        seed: Of every choice, with the view.
        device: Of the batches. A CUDA device holds the pixels when they fit in a quarter of its free memory.
    """

    def __init__(
        self, images: Images, augmentation: Augmentation, seed: int, device: torch.device | None = None
    ) -> None:
        self._augmentation = augmentation
        self._seed = seed
        self._device = device or torch.device("cpu")
        self._pixels = _resident(images.images, self._device)
        self._labels = torch.from_numpy(np.array(images.labels, np.int64)).to(self._device)
        self._classes = len(images.facts.classes)
        # One value a channel, repeated over a line of pixels: a last axis of 3 is three times as slow.
        width = self._pixels.shape[2]
        self._mean, self._std = (
            torch.tensor(one, dtype=torch.float32, device=self._device).repeat(width)
            for one in (images.facts.mean, images.facts.std)
        )
        self._drawn: tuple[int, _Choices] | None = None

    def __len__(self) -> int:
        return len(self._labels)

    def batch(self, rows: Tensor, view: int, progress: float = 0.0) -> Batch:
        """Return the images of some rows in one view.

        Args:
            rows: int64 [batch].
            view: Number of the augmentation, from 0.
            progress: Handed on: the share of the run that is done.

        Returns:
            Images float32 [batch, channels, height, width], normalised, in channels-last memory, with their targets.
        """
        here = rows.to(self._pixels.device)
        choices = self._choices(view)
        images = self._augmented(here, choices)
        smoothing = self._augmentation.label_smoothing
        labels = self._labels[rows.to(self._device)]
        targets = soft_targets(labels, self._classes, smoothing)
        if self._augmentation.mixes:
            partner = choices.partner[here]
            others = self._augmented(partner, choices)
            blend, box, share = (getattr(choices, one)[here].to(self._device) for one in ("blend", "box", "share"))
            images = mix_up(images, others, blend) if self._augmentation.mixup else images
            images = cut_mix(images, others, box) if self._augmentation.cutmix else images
            other_targets = soft_targets(self._labels[partner.to(self._device)], self._classes, smoothing)
            targets = targets * share[:, None] + other_targets * (1 - share[:, None])
        return Batch(images, labels, targets, rows, view, progress)

    def _choices(self, view: int) -> _Choices:
        if self._drawn is None or self._drawn[0] != view:
            size = (self._pixels.shape[1], self._pixels.shape[2])
            drawn = _draw(self._augmentation, len(self), size, (self._seed, view))
            on_device = _Choices(*(getattr(drawn, one.name).to(self._pixels.device) for one in fields(drawn)))
            self._drawn = (view, on_device)
        return self._drawn[1]

    def _augmented(self, rows: Tensor, choices: _Choices) -> Tensor:
        """Return rows before mixing, normalised; every step treats an image without looking at the others."""
        what = self._augmentation
        pixels = self._picked(rows, choices)
        if what.randaugment:
            operations, signs = choices.operations[rows], choices.signs[rows]
            pixels = randaugment.recolour(pixels, operations, signs, what.randaugment_magnitude)
        batch, height, width, channels = pixels.shape
        lines = pixels.to(self._device).view(batch, height, width * channels).to(torch.float32)
        lines.div_(255).sub_(self._mean).div_(self._std)  # bit for bit what preprocessing.normalize does
        images = lines.view(batch, height, width, channels).permute(0, 3, 1, 2)
        return cut_out(images, choices.hole[rows].to(self._device)) if what.cutout_pixels else images

    def _picked(self, rows: Tensor, choices: _Choices) -> Tensor:
        """Return uint8 [batch, height, width, channels], moved and mirrored by one gather from the whole split."""
        what = self._augmentation
        _, height, width, channels = self._pixels.shape
        if not (what.shift_pixels or what.flip or what.randaugment):
            return self._pixels.index_select(0, rows)
        if what.randaugment:
            row, column = randaugment.moved(choices.matrices[rows], (height, width))
        else:
            row = torch.arange(height, device=rows.device)[None, :, None]
            column = torch.arange(width, device=rows.device)[None, None, :]
        each = (slice(None), None, None)
        column = torch.where(choices.is_mirrored[rows][each], width - 1 - column, column)
        row = (row + choices.down[rows][each]).clamp_(0, height - 1)  # a clamped index repeats the edge
        column = (column + choices.right[rows][each]).clamp_(0, width - 1)
        source = (rows[each] * height + row) * width + column
        return self._pixels.view(-1, channels).index_select(0, source.view(-1)).view(-1, height, width, channels)


def _resident(images: NDArray[np.uint8], device: torch.device) -> Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")  # and nobody writes
        pixels = torch.from_numpy(images)
    if device.type != "cuda" or pixels.numel() > torch.cuda.mem_get_info(device)[0] // 4:
        return pixels
    return pixels.to(device)


def _draw(augmentation: Augmentation, images: int, size: tuple[int, int], seed: tuple[int, int]) -> _Choices:
    """Draw for every image; each kind has a generator of its own, so that one more option leaves the others be."""
    streams = (np.random.default_rng((*seed, kind)) for kind in range(6))
    moves, mirrors, holes, operations, mixes, boxes = streams
    largest = augmentation.shift_pixels
    down, right = moves.integers(-largest, largest + 1, (2, images))
    side = np.full(images, augmentation.cutout_pixels)
    slots = (images, augmentation.randaugment)
    chosen, signs = operations.integers(0, len(randaugment.OPERATIONS), slots), operations.choice((-1, 1), slots)
    blend, box, share = _draw_mix(augmentation, images, size, (mixes, boxes))
    drawn = (
        down,
        right,
        mirrors.random(images) < (0.5 if augmentation.flip else 0.0),
        _box(holes, (side, side), size),
        chosen,
        signs,
        randaugment.geometry(chosen, signs, augmentation.randaugment_magnitude, size),
        mixes.permutation(images),
        blend,
        box,
        share,
    )
    return _Choices(*(torch.from_numpy(one) for one in drawn))


def _box(
    rng: np.random.Generator, sides: tuple[NDArray[np.int64], NDArray[np.int64]], size: tuple[int, int]
) -> NDArray[np.int64]:
    """Return boxes [images, 4] (top, bottom, left, right) around any pixel, cut at the edges."""
    edges: list[NDArray[np.int64]] = []
    for side, length in zip(sides, size, strict=True):
        start = rng.integers(0, length, len(side)) - side // 2
        edges += [start.clip(0, length), (start + side).clip(0, length)]
    return np.stack(edges, axis=1)


def _draw_mix(
    augmentation: Augmentation,
    images: int,
    size: tuple[int, int],
    generators: tuple[np.random.Generator, np.random.Generator],
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float32]]:
    """Return blend, box and share of `_Choices`; the share of a pasted image is what the box leaves of its area."""
    mixes, boxes = generators
    ones = np.ones(images)
    blend = mixes.beta(augmentation.mixup, augmentation.mixup, images) if augmentation.mixup else ones
    kept = boxes.beta(augmentation.cutmix, augmentation.cutmix, images) if augmentation.cutmix else ones
    if augmentation.mixup and augmentation.cutmix:
        is_pasted = mixes.random(images) < 0.5
        blend, kept = np.where(is_pasted, 1.0, blend), np.where(is_pasted, kept, 1.0)
    height, width = (np.rint(np.sqrt(1 - kept) * length).astype(np.int64) for length in size)
    box = _box(boxes, (height, width), size)
    area = (box[:, 1] - box[:, 0]) * (box[:, 3] - box[:, 2]) / (size[0] * size[1])
    return blend.astype(np.float32), box, (blend * (1 - area)).astype(np.float32)
