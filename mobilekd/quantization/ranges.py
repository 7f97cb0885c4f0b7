"""Ranges from data: which real interval the 256 integers of a tensor cover."""

from typing import Literal

import torch
from torch import Tensor

Calibration = Literal["minmax", "moving_average", "percentile", "mse"]

SMALLEST_SCALE = 2.0**-60
"""torchao's own floor of 2**-12 is above the scale of a channel with small weights (|w| < 0.031), which would then lose
bits (a layer scale of 1e-6 folded into its layer would leave zeros); any positive floor that training and conversion
share will do."""

_SMALLEST_SHARE = 2.0**-20
"""Scale of a channel, as a share of the layer's largest. A channel whose weights are all but zero would else have an
accumulator so fine that XNNPACK refuses to rescale it and its bias does not fit int32."""

_BINS = 4096
_PERCENTILE = 0.9999
_AVERAGING = 0.05
# Powers of 5: two tensors with one largest value, as both sides of a hard-swish have, may get other clips. On an even
# grid their scales would be to each other as 9 to 10, and every fifth integer a tie, which each runtime breaks as its
# last bit falls (a MobileNetV3 answered 4.5 % of the images otherwise in XNNPACK). No ratio on this grid is rational.
_CLIPS = 5 ** (-torch.arange(81, dtype=torch.float64) / 80).flip(0)


class Histogram:
    """Counts of a tensor's values over [-reach, reach]; the reach doubles when a value lies outside."""

    def __init__(self) -> None:
        self.reach = 0.0
        self.counts = torch.zeros(_BINS, dtype=torch.float64)
        self.low, self.high = float("inf"), float("-inf")
        self.average: tuple[float, float] | None = None

    def add(self, values: Tensor) -> None:
        """Count a batch of values."""
        low, high = (float(end) for end in torch.aminmax(values))
        self.low, self.high = min(self.low, low), max(self.high, high)
        before = self.average or (low, high)
        self.average = tuple(old + _AVERAGING * (new - old) for old, new in zip(before, (low, high), strict=True))  # type: ignore[assignment]
        self._stretch(max(-low, high))
        if self.reach > 0:
            self.counts += torch.histc(values.float(), _BINS, -self.reach, self.reach).double()

    def limits(self, how: Calibration, *, is_symmetric: bool) -> tuple[float, float]:
        """Return the interval to cover, 0 inside, in units of the tensor."""
        if how == "moving_average" and self.average is not None:
            low, high = self.average
        elif how == "percentile":
            low, high = self._percentiles()
        elif how == "mse":
            low, high = self._least_error(is_symmetric=is_symmetric)
        else:
            low, high = self.low, self.high
        return min(low, 0.0), max(high, 0.0)

    def _stretch(self, reach: float) -> None:
        if self.reach == 0:
            self.reach = reach
        while reach > self.reach:  # two neighbours become one; the old range is the middle half of the new one
            merged = self.counts.reshape(-1, 2).sum(dim=1)
            self.counts = torch.zeros_like(self.counts)
            self.counts[_BINS // 4 : _BINS // 4 + _BINS // 2] = merged
            self.reach *= 2

    def _centres(self) -> Tensor:
        step = 2 * self.reach / _BINS
        return torch.arange(_BINS, dtype=torch.float64) * step - self.reach + step / 2

    def _percentiles(self) -> tuple[float, float]:
        """Return the ends that leave (1 - 0.9999) / 2 of the values out on either side."""
        share = self.counts.cumsum(0) / self.counts.sum().clamp_min(1)
        centres = self._centres()
        outside = (1 - _PERCENTILE) / 2
        low = float(centres[int((share > outside).int().argmax())])
        high = float(centres[int((share >= 1 - outside).int().argmax())])
        return max(low, self.low), min(high, self.high)

    def _least_error(self, *, is_symmetric: bool) -> tuple[float, float]:
        """Return the interval whose rounding and clipping have the least mean squared error together."""
        if self.reach == 0:
            return self.low, self.high
        values = self._centres()
        low, high = min(self.low, 0.0), max(self.high, 0.0)
        clips = _CLIPS[:, None]
        if is_symmetric:
            top = max(-low, high)
            step = clips * top / 127
            rounded = (values / step).round().clamp(-128, 127) * step
        else:
            step = clips * (high - low) / 255
            zero = -128 - (clips * low / step).round()
            rounded = ((values / step).round() + zero).clamp(-128, 127).sub(zero) * step
        error = ((rounded - values) ** 2 * self.counts).sum(dim=1)
        best = float(_CLIPS[int(error.argmin())])
        return best * low, best * high


def quantization_of(low: float, high: float, *, is_symmetric: bool) -> tuple[float, int]:
    """Return scale and zero point of int8 over an interval that holds 0.

    Example:
        >>> quantization_of(-1.0, 127.0, is_symmetric=True)
        (1.0, 0)
        >>> quantization_of(0.0, 255.0, is_symmetric=False)
        (1.0, -128)

    A tensor that is 0 throughout gets the scale 1: XNNPACK (LiteRT 2.3.0) corrupts memory where the scale of an output
    is smaller than that of its accumulator by more than it can rescale.
    """
    if low == high == 0:
        return 1.0, 0
    if is_symmetric:
        return max(-low / 128, high / 127, SMALLEST_SCALE), 0
    scale = max((high - low) / 255, SMALLEST_SCALE)
    return scale, max(-128, min(127, round(-128 - low / scale)))


def weight_scales(weight: Tensor, axis: int, how: Calibration) -> Tensor:
    """Return one scale a channel for integers in [-127, 127]; float32 [channels].

    "mse" tries ranges from 0.2 of the largest weight on and keeps the one of the least squared error; the others
    cover the largest weight.
    """
    rows = weight.detach().transpose(0, axis).reshape(weight.shape[axis], -1)
    top = rows.abs().amax(dim=1)
    top = top.clamp_min(float(top.max()) * _SMALLEST_SHARE)
    if how != "mse":
        return (top / 127).clamp_min(SMALLEST_SCALE)
    best_scale, best_error = top / 127, torch.full_like(top, torch.inf)
    for clip in _CLIPS.float():
        scale = (clip * top / 127).clamp_min(SMALLEST_SCALE)
        error = ((rows / scale[:, None]).round().clamp(-127, 127) * scale[:, None] - rows).square().sum(dim=1)
        is_better = error < best_error
        best_scale, best_error = torch.where(is_better, scale, best_scale), torch.where(is_better, error, best_error)
    return best_scale.clamp_min(SMALLEST_SCALE)
