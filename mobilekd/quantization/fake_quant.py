"""Rounding in training: what is trained is the very scale that is converted.

torchao's fused moving-average module trains max / 255 and converts max / 127.5, and its learnable one lets a scale
become negative; here a scale is one buffer, positive by construction, read by training and conversion alike.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torchao.quantization.pt2e import FakeQuantizeBase

from mobilekd.errors import StageError
from mobilekd.quantization.ranges import SMALLEST_SCALE, Calibration, Histogram, quantization_of, weight_scales

_ABSENT = -1e30


class FakeQuant(FakeQuantizeBase):  # type: ignore[misc]  # torchao ships no types
    """Scale, zero point, and the switch between calibrating, rounding and learning.

    Attributes:
        scale: float32, [1] or [channels]; what conversion reads.
        zero_point: int32, [1] or [channels].
        log_scale: Natural logarithm of the scale while it is learned (LSQ): the scale can't become negative; else None.
        name: Tensor that it rounds; for messages.
    """

    scale: Tensor
    zero_point: Tensor
    log_scale: nn.Parameter | None

    is_dynamic = False

    def __init__(self, *, dtype: torch.dtype, quant_min: int, quant_max: int, qscheme: torch.qscheme) -> None:
        super().__init__()
        self.dtype, self.quant_min, self.quant_max, self.qscheme = dtype, quant_min, quant_max, qscheme
        self.name = ""
        self.register_buffer("scale", torch.ones(1))
        self.register_buffer("zero_point", torch.zeros(1, dtype=torch.int32))
        self.register_parameter("log_scale", None)

    @property
    def is_symmetric(self) -> bool:
        """Return whether the zero point is 0."""
        return self.qscheme in (torch.per_tensor_symmetric, torch.per_channel_symmetric)

    def calculate_qparams(self) -> tuple[Tensor, Tensor]:
        """Return scale and zero point, as conversion writes them."""
        return self.scale, self.zero_point

    def learn(self) -> None:
        """Let gradients move the scale from now on."""
        self.log_scale = nn.Parameter(self.scale.detach().clamp_min(SMALLEST_SCALE).log())

    def settle(self) -> None:
        """Keep the scale as it is from now on."""
        self.take_learned()
        self.log_scale = None

    def take_learned(self) -> None:
        """Bring the scale in line with its logarithm, where that is learned."""
        if self.log_scale is not None:
            self.scale.copy_(self.log_scale.detach().exp().clamp_min(SMALLEST_SCALE))

    def _set(self, scale: Tensor, zero_point: Tensor) -> None:
        if not torch.isfinite(scale).all():
            raise StageError(
                f"{self.name or 'a tensor'} has values that are not finite: no range covers them",
                hint="the float network overflows there; train it again with a smaller learning rate",
                code="MKD-411",
            )
        self.scale = scale.detach().float().reshape(-1).clone()
        self.zero_point = zero_point.to(torch.int32).reshape(-1).clone()

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *others: object) -> None:
        for name in ("scale", "zero_point"):  # a fresh module has one element; a trained one may have a channel each
            if (value := state_dict.get(prefix + name)) is not None:
                setattr(self, name, torch.empty_like(value))
        super()._load_from_state_dict(state_dict, prefix, *others)


class TensorFakeQuant(FakeQuant):
    """An activation: one scale; calibrated from a histogram of its values."""

    def __init__(
        self,
        *,
        dtype: torch.dtype,
        quant_min: int,
        quant_max: int,
        qscheme: torch.qscheme,
        is_dynamic: bool = False,
        calibration: Calibration,
    ) -> None:
        assert not is_dynamic  # torchao passes it; scales here are fixed before conversion
        super().__init__(dtype=dtype, quant_min=quant_min, quant_max=quant_max, qscheme=qscheme)
        self._calibration = calibration
        self._seen: Histogram | None = None

    def observe(self) -> None:
        """Count values, unrounded, until `set_range`."""
        self._seen = Histogram()

    def set_range(self) -> None:
        """Set scale and zero point from what was counted."""
        seen, self._seen = self._seen, None
        if seen is None or seen.low > seen.high:
            return
        low, high = seen.limits(self._calibration, is_symmetric=self.is_symmetric)
        scale, zero_point = quantization_of(low, high, is_symmetric=self.is_symmetric)
        self._set(torch.tensor([scale]), torch.tensor([zero_point]))

    def forward(self, values: Tensor) -> Tensor:
        """Return the values rounded to the grid, clamped to its ends; same shape."""
        if self._seen is not None:
            if not torch.isfinite(values).all():
                raise StageError(
                    f"{self.name or 'a tensor'} gives NaN or infinite values on the calibration images",
                    hint="the float network overflows there; train it again with a smaller learning rate",
                    code="MKD-411",
                )
            self._seen.add(values.detach())
            return values
        if self.fake_quant_enabled[0] != 1:
            return values
        self.take_learned()
        return _rounding(values, self.log_scale, self)


class PerChannelFakeQuant(FakeQuant):
    """A weight: one scale for each output channel; unless it is learned it follows the weight in every step.

    Attributes:
        clip: Part of a channel's largest weight that the range covers; 1 but for calibration "mse".
    """

    clip: Tensor

    def __init__(
        self,
        *,
        dtype: torch.dtype,
        quant_min: int,
        quant_max: int,
        qscheme: torch.qscheme,
        ch_axis: int,
        is_dynamic: bool = False,
        calibration: Calibration,
    ) -> None:
        assert not is_dynamic
        super().__init__(dtype=dtype, quant_min=quant_min, quant_max=quant_max, qscheme=qscheme)
        self.ch_axis = ch_axis
        self.follows = True  # until `settle_scales`
        self._calibration = calibration
        self.register_buffer("clip", torch.full((1,), _ABSENT))

    def set_range(self, weight: Tensor) -> None:
        """Set the scales from a weight; how they follow it is kept."""
        scales = weight_scales(weight, self.ch_axis, self._calibration)
        top = weight_scales(weight, self.ch_axis, "minmax")
        self.clip = (scales / top).detach().clone()
        self._set(scales, torch.zeros(len(scales), dtype=torch.int32))

    def forward(self, weight: Tensor) -> Tensor:
        """Return the weight rounded, channel by channel; same shape."""
        self.take_learned()
        if self.log_scale is None and self.follows:
            if self.clip[0] == _ABSENT:
                self.set_range(weight)
            self._set(weight_scales(weight, self.ch_axis, "minmax") * self.clip, torch.zeros(len(self.clip)))
        if self.fake_quant_enabled[0] != 1:
            return weight
        return _rounding(weight, self.log_scale, self)

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *others: object) -> None:
        if (value := state_dict.get(prefix + "clip")) is not None:
            self.clip = torch.empty_like(value)
        super()._load_from_state_dict(state_dict, prefix, *others)


class _Rounding(torch.autograd.Function):
    """Rounding with the straight-through estimator, and LSQ (Esser et al. 2020, arXiv 1902.08153) for the scale.

    With r = rounded(v), g the gradient of r and m = 1 inside the range: dL/dv = g m, and from equation 3 of the paper
    dL/ds = sum g (r - v m) / s, so dL/dlog(s) = <g, r> - <g m, v>: two dot products, no tensor is made for it.
    """

    @staticmethod
    def forward(context: Any, values: Tensor, log_scale: Tensor | None, quant: FakeQuant) -> Tensor:
        """Round; `log_scale` is here for its gradient, `quant.scale` is its exponential."""
        view = [1] * values.ndim
        context.axis = quant.ch_axis if isinstance(quant, PerChannelFakeQuant) else None
        if context.axis is not None:
            view[context.axis] = -1
        scale = quant.scale.reshape(view)
        ends = tuple(end - quant.zero_point.reshape(view) for end in (quant.quant_min, quant.quant_max))
        # Four passes of vector instructions in one buffer: torch.fake_quantize_* works element by element on the CPU
        # and makes a mask beside (a step of ResNet-20 took 1.6 times the float step with it).
        rounded = torch.mul(values, 1 / scale).round_()
        if context.axis is None:
            rounded.clamp_(float(ends[0]), float(ends[1]))
        else:
            rounded.clamp_(*ends)
        rounded.mul_(scale)
        context.save_for_backward(values, rounded)
        context.ends = tuple(end * scale for end in ends)
        context.is_learned = log_scale is not None
        # Esser et al. 2020, section 2.2: balances a scale's step with that of the many values it serves.
        context.damping = 1 / math.sqrt(values[0].numel() * quant.quant_max)
        return rounded

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None, None]:
        """Return the gradients of values and log_scale."""
        values, rounded = context.saved_tensors
        low, high = context.ends
        if context.axis is None:
            passed = torch.ops.aten.hardtanh_backward(gradient, values, float(low), float(high))
        else:
            passed = gradient * ((values > low) & (values < high))
        if not context.is_learned:
            return passed, None, None
        if context.axis is None:
            pull = (_dot(gradient, rounded) - _dot(passed, values)).reshape(1)
        else:
            others = [axis for axis in range(values.ndim) if axis != context.axis]
            pull = (gradient * rounded - passed * values).sum(dim=others)
        return passed, pull * context.damping, None


def _rounding(values: Tensor, log_scale: Tensor | None, quant: FakeQuant) -> Tensor:
    rounded: Tensor = _Rounding.apply(values, log_scale, quant)  # type: ignore[no-untyped-call]
    return rounded


def _dot(first: Tensor, second: Tensor) -> Tensor:
    """Return the sum of products, without a copy where both lie in memory alike."""
    if first.stride() == second.stride():
        is_dense = first.is_contiguous() or first.is_contiguous(memory_format=torch.channels_last)
        if is_dense:
            flat = ((first.numel(),), (1,))
            return torch.dot(first.as_strided(*flat), second.as_strided(*flat))
    return (first * second).sum()
