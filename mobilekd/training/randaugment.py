"""RandAugment on a batch of uint8 tensors (Cubuk et al. 2019, arXiv:1909.13719), ranges as in torchvision.

Sharpness and equalize are left out: they need a neighbourhood and a histogram of each image, the dearest of the
fourteen. Where an image moves, its edges are repeated instead of filled with black, and the nearest pixel is taken.
Means are sums of integers, so that an image gets the same bits in every batch.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

OPERATIONS = (
    "identity", "shear_x", "shear_y", "translate_x", "translate_y", "rotate",
    "brightness", "saturation", "contrast", "posterize", "solarize", "autocontrast",
)  # fmt: skip
LARGEST_MAGNITUDE = 30
_FIRST_OF_COLOUR = OPERATIONS.index("brightness")


def geometry(
    operations: NDArray[np.int64], signs: NDArray[np.int64], magnitude: int, size: tuple[int, int]
) -> NDArray[np.float32]:
    """Return where each image's pixels come from: [images, 2, 3] on (x, y, 1), counted from the centre.

    Args:
        operations: Numbers in OPERATIONS, [images, operations]; those of colour move nothing.
        signs: -1 or 1, same shape.
        magnitude: 0 to 30: shear to 0.3, translation to 150 / 331 of the side, rotation to 30 degrees.
        size: Height and width.
    """
    table = np.stack([[_matrix(name, sign * magnitude, size) for sign in (-1, 1)] for name in OPERATIONS])
    composed = np.broadcast_to(np.eye(3), (len(operations), 3, 3))
    for slot in range(operations.shape[1]):
        composed = composed @ table[operations[:, slot], (signs[:, slot] + 1) // 2]
    return composed[:, :2].astype(np.float32)


def _matrix(name: str, magnitude: int, size: tuple[int, int]) -> NDArray[np.float64]:
    level = magnitude / LARGEST_MAGNITUDE
    matrix = np.eye(3)
    if name == "shear_x":
        matrix[0, 1] = 0.3 * level
    elif name == "shear_y":
        matrix[1, 0] = 0.3 * level
    elif name == "translate_x":
        matrix[0, 2] = int(150 / 331 * size[1] * level)
    elif name == "translate_y":
        matrix[1, 2] = int(150 / 331 * size[0] * level)
    elif name == "rotate":
        cosine, sine = math.cos(math.radians(30 * level)), math.sin(math.radians(30 * level))
        matrix[:2, :2] = [[cosine, -sine], [sine, cosine]]
    return matrix


def moved(matrices: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return rows and columns of the pixels that images take, int64 [batch, height, width] each, inside the image."""
    height, width = size
    y = torch.arange(height, device=matrices.device)[:, None] - (height - 1) / 2
    x = torch.arange(width, device=matrices.device)[None, :] - (width - 1) / 2
    factors = matrices[:, :, :, None, None]
    # Multiplied out: a matrix product may round differently in another batch size.
    across, down = (factors[:, k, 0] * x + factors[:, k, 1] * y + factors[:, k, 2] for k in (0, 1))
    row = (down + (height - 1) / 2).round().long().clamp_(0, height - 1)
    column = (across + (width - 1) / 2).round().long().clamp_(0, width - 1)
    return row, column


def recolour(pixels: Tensor, operations: Tensor, signs: Tensor, magnitude: int) -> Tensor:
    """Apply the operations of colour, in order, in place.

    Args:
        pixels: uint8 [batch, height, width, 3].
        operations: Numbers in OPERATIONS, [batch, operations]; those that move pixels do nothing here.
        signs: -1 or 1, same shape.
        magnitude: 0 to 30.

    Returns:
        The pixels.
    """
    for slot in range(operations.shape[1]):
        for number in range(_FIRST_OF_COLOUR, len(OPERATIONS)):
            chosen = (operations[:, slot] == number).nonzero().squeeze(1)
            if len(chosen):
                level = signs[chosen, slot, None, None, None] * (magnitude / LARGEST_MAGNITUDE)
                pixels[chosen] = _coloured(OPERATIONS[number], pixels[chosen], level, magnitude)
    return pixels


def _coloured(name: str, pixels: Tensor, level: Tensor, magnitude: int) -> Tensor:
    if name == "brightness":
        return _blend(pixels, torch.zeros_like(level), 1 + 0.9 * level)
    if name == "saturation":
        return _blend(pixels, _grey(pixels), 1 + 0.9 * level)
    if name == "contrast":
        grey = _grey(pixels)
        mean = grey.sum((1, 2, 3), keepdim=True) // grey[0].numel()
        return _blend(pixels, mean, 1 + 0.9 * level)
    if name == "posterize":
        dropped_bits = round(magnitude / LARGEST_MAGNITUDE * 4)
        return pixels.bitwise_and(256 - 2**dropped_bits)
    if name == "solarize":
        return torch.where(pixels >= 255 * (1 - magnitude / LARGEST_MAGNITUDE), 255 - pixels, pixels)
    return _stretched(pixels)


def _grey(pixels: Tensor) -> Tensor:
    weights = torch.tensor((299, 587, 114), device=pixels.device)  # ITU-R BT.601
    return (pixels * weights).sum(3, keepdim=True) // 1000


def _blend(pixels: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    mixed = pixels.to(torch.float32) * factor + other.to(torch.float32) * (1 - factor)
    return mixed.round_().clamp_(0, 255).to(torch.uint8)


def _stretched(pixels: Tensor) -> Tensor:
    """Return each channel of each image stretched to 0 to 255; a channel of one value stays."""
    low, high = pixels.amin((1, 2), keepdim=True), pixels.amax((1, 2), keepdim=True)
    width = (high - low).to(torch.float32)
    stretched = (pixels - low).to(torch.float32) * (255 / width.clamp(min=1))
    return torch.where(high > low, stretched.round_().clamp_(0, 255).to(torch.uint8), pixels)
