"""How tensors are quantized: bits, symmetry, granularity, and the observer that warms a range up."""

from dataclasses import dataclass
from typing import Literal

import torch
from torchao.quantization.pt2e import FakeQuantize, MovingAverageMinMaxObserver, MovingAveragePerChannelMinMaxObserver
from torchao.quantization.pt2e.quantizer import QuantizationSpec

# torchao's own floor of 2**-12 is above the scale of a channel with small weights (|w| < 0.031), which would then
# lose bits; any positive floor that training and conversion share will do.
_SMALLEST_SCALE = 2.0**-24


@dataclass(frozen=True, slots=True)
class Scheme:
    """Integer ranges of activations and weights.

    Attributes:
        symmetry: "symmetric" keeps every activation's zero point at 0, which TensorRT demands and MNN needs to be
            exact; "asymmetric" spends all 256 steps on one-sided ranges (TFLite and ONNX Runtime only).
        averaging: Weight of a new batch in an activation's moving minimum and maximum.
    """

    symmetry: Literal["symmetric", "asymmetric"] = "symmetric"
    averaging: float = 0.05

    def activation(self) -> QuantizationSpec:
        """Return the spec of an activation: int8, per tensor.

        FakeQuantize, not its fused variant: the fused one trains max / 255 and converts max / 127.5.
        """
        is_symmetric = self.symmetry == "symmetric"
        return QuantizationSpec(
            dtype=torch.int8,
            quant_min=-128,
            quant_max=127,
            qscheme=torch.per_tensor_symmetric if is_symmetric else torch.per_tensor_affine,
            observer_or_fake_quant_ctr=FakeQuantize.with_args(
                observer=MovingAverageMinMaxObserver, averaging_constant=self.averaging, eps=_SMALLEST_SCALE
            ),
        )

    def weight(self, *, channel_axis: int) -> QuantizationSpec:
        """Return the spec of a weight: int8 in [-127, 127], per output channel, zero point 0.

        The averaging constant of 1 makes the range follow the weight from step to step.
        """
        # Weights stay in [-127, 127]: the int8 kernels multiply pairs and -128 * -128 * 2 overflows int16.
        return QuantizationSpec(
            dtype=torch.int8,
            quant_min=-127,
            quant_max=127,
            qscheme=torch.per_channel_symmetric,
            ch_axis=channel_axis,
            observer_or_fake_quant_ctr=FakeQuantize.with_args(
                observer=MovingAveragePerChannelMinMaxObserver, averaging_constant=1.0, eps=_SMALLEST_SCALE
            ),
        )
