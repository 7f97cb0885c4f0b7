"""What may happen to training images, and the parts of it that need no random numbers."""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn.functional import one_hot, pad


@dataclass(frozen=True, slots=True)
class Augmentation:
    """How training images and their targets are varied; the defaults leave them as they are.

    Attributes:
        shift_pixels: Images move by up to so many pixels each way, edges repeated.
        flip: Half of the images are mirrored left to right.
        cutout_pixels: Side of a square that is set to the data's mean (DeVries and Taylor 2017, arXiv:1708.04552).
        randaugment: Operations an image (Cubuk et al. 2019, arXiv:1909.13719); see training/randaugment.py.
        randaugment_magnitude: 0 to 30.
        mixup: alpha of Beta(alpha, alpha) for the share of a blended partner (Zhang et al. 2017, arXiv:1710.09412).
        cutmix: The same for a pasted box (Yun et al. 2019, arXiv:1905.04899); with mixup, each image has one of both.
        label_smoothing: Share of the target that is spread evenly over all classes.
    """

    shift_pixels: int = 0
    flip: bool = False
    cutout_pixels: int = 0
    randaugment: int = 0
    randaugment_magnitude: int = 9
    mixup: float = 0.0
    cutmix: float = 0.0
    label_smoothing: float = 0.0

    @property
    def mixes(self) -> bool:
        """Whether an image gets pixels of another one."""
        return self.mixup > 0 or self.cutmix > 0


def _in_box(box: Tensor, height: int, width: int) -> Tensor:
    """Return which pixels lie in each box, bool [batch, 1, height, width]; box is [batch, 4], ends exclusive."""
    top, bottom, left, right = box[:, :, None].unbind(1)
    row, column = torch.arange(height, device=box.device), torch.arange(width, device=box.device)
    rows, columns = (row >= top) & (row < bottom), (column >= left) & (column < right)
    return (rows[:, :, None] & columns[:, None, :])[:, None]


def cut_out(images: Tensor, box: Tensor) -> Tensor:
    """Return the images with each box (top, bottom, left, right) at 0, the mean after normalisation.

    Args:
        images: [batch, channels, height, width].
        box: int64 [batch, 4], ends exclusive; what lies outside of the image is ignored.
    """
    return torch.where(_in_box(box, *images.shape[2:]), 0.0, images)


def mix_up(images: Tensor, partners: Tensor, share: Tensor) -> Tensor:
    """Return share * image + (1 - share) * partner for images [batch, channels, height, width], share [batch]."""
    share = share[:, None, None, None]
    return images * share + partners * (1 - share)


def cut_mix(images: Tensor, partners: Tensor, box: Tensor) -> Tensor:
    """Return the images with the partner's pixels in each box; shapes as in `cut_out`."""
    return torch.where(_in_box(box, *images.shape[2:]), partners, images)


def soft_targets(labels: Tensor, classes: int, smoothing: float = 0.0) -> Tensor:
    """Return (1 - smoothing) * one-hot + smoothing / classes, float32 [batch, classes].

    Example:
        >>> soft_targets(torch.tensor([1]), 2, smoothing=0.5).tolist()
        [[0.25, 0.75]]
    """
    return one_hot(labels, classes).to(torch.float32) * (1 - smoothing) + smoothing / classes


def random_shift(images: Tensor, largest: int, generator: Generator) -> Tensor:
    """Return each image moved by up to `largest` pixels, edges repeated; [batch, channels, height, width]."""
    if largest == 0:
        return images
    batch, _, height, width = images.shape
    padded = pad(images, (largest,) * 4, mode="replicate")
    offsets = torch.randint(0, 2 * largest + 1, (2, batch), generator=generator)
    rows = offsets[0, :, None] + torch.arange(height)
    columns = offsets[1, :, None] + torch.arange(width)
    picked = padded.permute(0, 2, 3, 1)[torch.arange(batch)[:, None, None], rows[:, :, None], columns[:, None, :]]
    return picked.permute(0, 3, 1, 2)  # memory stays channels-last, which convolutions want


def random_flip(images: Tensor, generator: Generator) -> Tensor:
    """Return the batch with about half of its images mirrored left to right; [batch, channels, height, width]."""
    is_flipped = torch.rand(len(images), generator=generator) < 0.5
    return torch.where(is_flipped[:, None, None, None], images.flip(3), images)
