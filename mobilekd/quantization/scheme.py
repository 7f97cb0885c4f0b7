"""How tensors are quantized: bits, symmetry, granularity, and where a range comes from."""

from dataclasses import dataclass
from typing import Literal

import torch
from torchao.quantization.pt2e.quantizer import QuantizationSpec

from mobilekd.quantization.fake_quant import PerChannelFakeQuant, TensorFakeQuant
from mobilekd.quantization.ranges import Calibration

Symmetry = Literal["symmetric", "asymmetric"]


@dataclass(frozen=True, slots=True)
class Scheme:
    """Integer ranges of activations and weights.

    Attributes:
        symmetry: "symmetric" keeps every activation's zero point at 0, which TensorRT demands and MNN needs to be
            exact; "asymmetric" spends all 256 steps on one-sided ranges (TFLite and ONNX Runtime only).
        activations: How calibration sets the range of an activation.
        weights: How the range of a weight is set: "minmax" covers the largest, "mse" has the least squared error.
    """

    symmetry: Symmetry = "symmetric"
    activations: Calibration = "moving_average"
    weights: Calibration = "minmax"

    def activation(self) -> QuantizationSpec:
        """Return the spec of an activation: int8, per tensor."""
        is_symmetric = self.symmetry == "symmetric"
        return QuantizationSpec(
            dtype=torch.int8,
            quant_min=-128,
            quant_max=127,
            qscheme=torch.per_tensor_symmetric if is_symmetric else torch.per_tensor_affine,
            observer_or_fake_quant_ctr=TensorFakeQuant.with_args(calibration=self.activations),
        )

    def weight(self, *, channel_axis: int) -> QuantizationSpec:
        """Return the spec of a weight: int8 in [-127, 127], per output channel, zero point 0."""
        # Weights stay in [-127, 127]: the int8 kernels multiply pairs and -128 * -128 * 2 overflows int16.
        return QuantizationSpec(
            dtype=torch.int8,
            quant_min=-127,
            quant_max=127,
            qscheme=torch.per_channel_symmetric,
            ch_axis=channel_axis,
            observer_or_fake_quant_ctr=PerChannelFakeQuant.with_args(calibration=self.weights),
        )
