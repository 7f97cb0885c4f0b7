"""Random crop and flip on a batch of tensors; teacher and student see the same pixels."""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn.functional import pad


@dataclass(frozen=True, slots=True)
class Augmentation:
    """What a view does to an image; stand-in until the views branch is merged."""

    shift_pixels: int = 0
    flip: bool = False


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
