"""What a view does to an image, and the random numbers of a view."""

from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Generator, Tensor

from mobilekd.training.randaugment import OPERATIONS


@dataclass(frozen=True, slots=True)
class Augmentation:
    """What a view does to an image, in this order; 0 and False switch a step off.

    Attributes:
        shift_pixels: Moved by up to so many pixels each way, edges repeated (the crop of a padded image).
        flip: Half of the images are mirrored left to right.
        randaugment: Operations an image (Cubuk et al. 2020, arXiv 1909.13719; the list: `randaugment.OPERATIONS`).
        randaugment_magnitude: Their strength, 0 to 30.
        cutout_pixels: Side of a square set to the mean colour (DeVries & Taylor 2017, arXiv 1708.04552).
        mixup: Beta(a, a) of the share of two images (Zhang et al. 2018, arXiv 1710.09412).
        cutmix: Beta(a, a) of the area kept beside a box of another image (Yun et al. 2019, arXiv 1905.04899).
            With both, each image draws one of the two.
        label_smoothing: Share of each label that is spread over all classes.
    """

    shift_pixels: int = 0
    flip: bool = False
    randaugment: int = 0
    randaugment_magnitude: int = 9
    cutout_pixels: int = 0
    mixup: float = 0.0
    cutmix: float = 0.0
    label_smoothing: float = 0.0

    @property
    def mixes(self) -> bool:
        """Return whether an image has a part of another one."""
        return self.mixup > 0 or self.cutmix > 0

    def pixel_facts(self) -> dict[str, int | float | bool]:
        """Return what decides pixels: a teacher's answers do not depend on the labels' smoothing."""
        return {name: value for name, value in asdict(self).items() if name != "label_smoothing"}


@dataclass(frozen=True, slots=True)
class Draws:
    """The random numbers of a view, one row an image of the split.

    Attributes:
        shifts: int64 [n, 2], down and right, in -shift_pixels to shift_pixels.
        is_flipped: bool [n].
        operations: int64 [n, randaugment], places in `OPERATIONS`.
        strengths: float32 [n, randaugment], -1 or 1 times a strength of 0 to 1.
        holes: float32 [n, 2], centre of the square, as shares of height and width.
        partners: int64 [n], the image that is mixed in: a permutation.
        shares: float32 [n], what is left of the image itself; 1 without mixing.
        is_box: bool [n]: CutMix, not mixup.
        boxes: float32 [n, 2], centre of the box, as shares of height and width.
    """

    shifts: Tensor
    is_flipped: Tensor
    operations: Tensor
    strengths: Tensor
    holes: Tensor
    partners: Tensor
    shares: Tensor
    is_box: Tensor
    boxes: Tensor


def draw(images: int, augmentation: Augmentation, seed: int, view: int) -> Draws:
    """Return the random numbers of a view: they depend on seed, view and the image's number alone."""
    state = np.random.SeedSequence((seed, view, 1)).generate_state(1, np.uint64)[0]
    generator = Generator().manual_seed(int(state >> np.uint64(1)))
    largest, count = augmentation.shift_pixels, augmentation.randaugment
    shifts = torch.randint(-largest, largest + 1, (images, 2), generator=generator)
    is_flipped = (torch.rand(images, generator=generator) < 0.5) & augmentation.flip
    operations = torch.randint(0, len(OPERATIONS), (images, count), generator=generator)
    signs = torch.randint(0, 2, (images, count), generator=generator) * 2 - 1
    holes = torch.rand((images, 2), generator=generator)
    partners = torch.randperm(images, generator=generator)
    is_box = torch.rand(images, generator=generator) < _share_of_boxes(augmentation)
    boxes = torch.rand((images, 2), generator=generator)
    rng = np.random.default_rng((seed, view, 2))
    shares = torch.ones(images)
    if augmentation.mixes:
        mixed = _beta(rng, augmentation.mixup, images)
        boxed = _beta(rng, augmentation.cutmix, images)
        shares = torch.where(is_box, torch.from_numpy(boxed), torch.from_numpy(mixed))
    strengths = signs * (augmentation.randaugment_magnitude / 30)
    return Draws(shifts, is_flipped, operations, strengths, holes, partners, shares, is_box, boxes)


def _share_of_boxes(augmentation: Augmentation) -> float:
    if augmentation.mixup > 0 and augmentation.cutmix > 0:
        return 0.5
    return 1.0 if augmentation.cutmix > 0 else 0.0


def _beta(rng: np.random.Generator, strength: float, images: int) -> "np.ndarray[tuple[int], np.dtype[np.float32]]":
    """Return shares of at least a half: the image that gives the row its label stays the larger part."""
    if strength <= 0:
        return np.ones(images, np.float32)
    drawn = rng.beta(strength, strength, images)
    return np.maximum(drawn, 1 - drawn).astype(np.float32)
