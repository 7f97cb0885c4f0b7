"""The one way from pixels to a network's input: training, parity, benchmark and bundle all call it."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def normalize(images: NDArray[np.uint8], mean: Sequence[float], std: Sequence[float]) -> NDArray[np.float32]:
    """Return (images / 255 - mean) / std: uint8 [n, height, width, channels] -> float32 [n, channels, height, width].

    Example:
        >>> normalize(np.array([[[[255, 0]]]], dtype=np.uint8), (0.5, 0.5), (0.5, 0.25)).tolist()
        [[[[1.0]], [[-2.0]]]]
    """
    scaled = images.astype(np.float32) / np.float32(255)
    centred = (scaled - np.asarray(mean, np.float32)) / np.asarray(std, np.float32)
    return np.ascontiguousarray(centred.transpose(0, 3, 1, 2))
