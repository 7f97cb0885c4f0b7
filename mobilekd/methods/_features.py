"""What several methods do to feature maps before they compare them."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def same_size(first: "Tensor", second: "Tensor") -> "tuple[Tensor, Tensor]":
    """Return two maps [batch, channels, height, width] in the size of the smaller: the larger one is averaged."""
    from torch.nn.functional import adaptive_avg_pool2d

    height = min(first.shape[2], second.shape[2])
    width = min(first.shape[3], second.shape[3])
    wanted = (height, width)
    pooled = (one if one.shape[2:] == wanted else adaptive_avg_pool2d(one, wanted) for one in (first, second))
    one, other = pooled
    return one, other
