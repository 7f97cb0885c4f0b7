"""RandAugment's operations on a batch of pixels, each image with one of its own (arXiv 1909.13719, table 1).

Sharpness, equalize and autocontrast are left out: they need a histogram or a filter of each image, and cost more than
the training step of a small student. Strengths run from -1 to 1, of which 1 is RandAugment's magnitude 30.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

_GREY = (0.299, 0.587, 0.114)
_LARGEST_DEGREES, _LARGEST_SHEAR, _LARGEST_SHIFT = 30.0, 0.3, 0.45


def _identity(pixels: Tensor, strength: Tensor) -> Tensor:
    del strength
    return pixels


def _brightness(pixels: Tensor, strength: Tensor) -> Tensor:
    return pixels * (1 + 0.9 * strength)


def _contrast(pixels: Tensor, strength: Tensor) -> Tensor:
    # Whole numbers add up alike in any order, so an image comes out alike in any batch.
    mean = _grey(pixels).round().long().sum(dim=(1, 2, 3), keepdim=True) / pixels[0, :1].numel()
    return mean + (pixels - mean) * (1 + 0.9 * strength)


def _saturation(pixels: Tensor, strength: Tensor) -> Tensor:
    grey = _grey(pixels)
    return grey + (pixels - grey) * (1 + 0.9 * strength)


def _posterize(pixels: Tensor, strength: Tensor) -> Tensor:
    step = 2.0 ** (4 * strength.abs()).round()
    return (pixels / step).floor() * step


def _solarize(pixels: Tensor, strength: Tensor) -> Tensor:
    return torch.where(pixels >= 256 * (1 - strength.abs()), 255 - pixels, pixels)


def _rotate(pixels: Tensor, strength: Tensor) -> Tensor:
    angle = torch.deg2rad(_LARGEST_DEGREES * strength.flatten())
    zero = torch.zeros_like(angle)
    return _moved(pixels, (angle.cos(), -angle.sin(), zero, angle.sin(), angle.cos(), zero))


def _shear_x(pixels: Tensor, strength: Tensor) -> Tensor:
    slope = _LARGEST_SHEAR * strength.flatten()
    zero, one = torch.zeros_like(slope), torch.ones_like(slope)
    return _moved(pixels, (one, slope, zero, zero, one, zero))


def _shear_y(pixels: Tensor, strength: Tensor) -> Tensor:
    slope = _LARGEST_SHEAR * strength.flatten()
    zero, one = torch.zeros_like(slope), torch.ones_like(slope)
    return _moved(pixels, (one, zero, zero, slope, one, zero))


def _shift_x(pixels: Tensor, strength: Tensor) -> Tensor:
    way = 2 * _LARGEST_SHIFT * strength.flatten()
    zero, one = torch.zeros_like(way), torch.ones_like(way)
    return _moved(pixels, (one, zero, way, zero, one, zero))


def _shift_y(pixels: Tensor, strength: Tensor) -> Tensor:
    way = 2 * _LARGEST_SHIFT * strength.flatten()
    zero, one = torch.zeros_like(way), torch.ones_like(way)
    return _moved(pixels, (one, zero, zero, zero, one, way))


OPERATIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "identity": _identity,
    "brightness": _brightness,
    "contrast": _contrast,
    "saturation": _saturation,
    "posterize": _posterize,
    "solarize": _solarize,
    "rotate": _rotate,
    "shear_x": _shear_x,
    "shear_y": _shear_y,
    "shift_x": _shift_x,
    "shift_y": _shift_y,
}


def apply(pixels: Tensor, operations: Tensor, strengths: Tensor) -> Tensor:
    """Return each image after its operations, one after the other.

    Args:
        pixels: float32 [batch, channels, height, width], 0 to 255.
        operations: int64 [batch, count], places in `OPERATIONS`.
        strengths: float32 [batch, count], -1 to 1.
    """
    done = pixels
    for turn in range(operations.shape[1]):
        changed = done.clone()
        for place, operation in enumerate(OPERATIONS.values()):
            rows = torch.nonzero(operations[:, turn] == place).flatten()
            if len(rows):
                strength = strengths[rows, turn].reshape(-1, 1, 1, 1)
                changed[rows] = operation(done[rows], strength).clamp(0, 255)
        done = changed
    return done


def _grey(pixels: Tensor) -> Tensor:
    if pixels.shape[1] != len(_GREY):
        return pixels[:, :1]
    red, green, blue = (pixels[:, place : place + 1] * weight for place, weight in enumerate(_GREY))
    return red + green + blue


def _moved(pixels: Tensor, matrix: tuple[Tensor, ...]) -> Tensor:
    """Return the images through an affine map of output to input, in shares of half the side; edges repeated."""
    theta = torch.stack(matrix, dim=1).reshape(-1, 2, 3)
    grid = affine_grid(theta, list(pixels.shape), align_corners=False)
    return grid_sample(pixels, grid, padding_mode="border", align_corners=False)
