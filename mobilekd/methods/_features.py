"""What the methods that compare feature maps share."""

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def fixed(teacher: "Tensor") -> "Tensor":
    """Return what the teacher gave, in float32 and without a gradient."""
    return teacher.detach().float()


def full_precision(near: "Tensor") -> AbstractContextManager[None]:
    """Return a context on the device of `near` in which autocast leaves float32 products alone.

    Differences of similarities are small beside the similarities; bfloat16 keeps 8 bits of them.
    """
    import torch

    return torch.autocast(near.device.type, enabled=False)


def pooled(maps: "Tensor", height: int, width: int) -> "Tensor":
    """Return the averages of [batch, channels, h, w] over a grid of [height, width] cells."""
    from torch.nn.functional import adaptive_avg_pool2d, avg_pool2d

    rows, columns = maps.shape[-2:]
    if (rows, columns) == (height, width):
        return maps
    # The backward pass of adaptive pooling adds with atomics on CUDA, in no fixed order; that of avg_pool2d does not.
    if rows % height == 0 and columns % width == 0:
        return avg_pool2d(maps, (rows // height, columns // width))
    return adaptive_avg_pool2d(maps, (height, width))


def matched(student: "Tensor", teacher: "Tensor") -> "tuple[Tensor, Tensor]":
    """Return both maps, the larger averaged down to the smaller, each axis by itself.

    Args:
        student: [batch, channels, height, width].
        teacher: Likewise; its channels may differ.
    """
    height = min(student.shape[-2], teacher.shape[-2])
    width = min(student.shape[-1], teacher.shape[-1])
    return pooled(student, height, width), pooled(teacher, height, width)
