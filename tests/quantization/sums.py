"""Sums of all pairs of int8 values, as three kernels and the quantized network compute them."""

import math

import numpy as np
import torch

from mobilekd.quantization import ties
from mobilekd.quantization.fake_quant import TensorFakeQuant
from mobilekd.quantization.ties import Sum

F32 = np.float32
INTEGERS = np.arange(-128, 128)
A, B = (one.ravel() for one in np.meshgrid(INTEGERS, INTEGERS, indexing="ij"))
PARTED = (0.029581044241786003, 0.07713420689105988, 0.09611590206623077)
"""Scales of a sum of the quickstart's student before its scales were moved: x86 and Arm part at -20 and 22."""


def rounding(scale: float, zero_point: int = 0) -> TensorFakeQuant:
    part = TensorFakeQuant(
        dtype=torch.int8, quant_min=-128, quant_max=127, qscheme=torch.per_tensor_symmetric, calibration="minmax"
    )
    part._set(torch.tensor([scale]), torch.tensor([zero_point]))
    return part


def fixed_point(scales: tuple[float, float, float], bits: int) -> np.ndarray:
    """Return the sums of all pairs by integer multipliers: ONNX Runtime on Arm has 22 bits, XNNPACK 21."""
    ratios = [F32(one) / F32(scales[2]) for one in scales[:2]]
    shift = bits - math.frexp(max(ratios))[1]
    first, second = (round(float(ratio) * 2**shift) for ratio in ratios)
    total = A * first + B * second
    return np.clip((total - (total < 0) + (1 << (shift - 1))) >> shift, -128, 127)


def folded_float(scales: tuple[float, float, float]) -> np.ndarray:
    """Return the sums of all pairs in float32 with zero points of 128 folded: ONNX Runtime on x86."""
    first, second = (F32(one) / F32(scales[2]) for one in scales[:2])
    folded = F32(128) - (first * F32(128) + second * F32(128))
    total = (folded + (A + 128).astype(F32) * first) + (B + 128).astype(F32) * second
    return np.clip(np.rint(total), 0, 255).astype(np.int64) - 128


def trained_way(scales: tuple[float, float, float]) -> np.ndarray:
    """Return the sums of all pairs as the quantized network computes them: float32, rounded once."""
    total = A.astype(F32) * F32(scales[0]) + B.astype(F32) * F32(scales[1])
    return np.clip(np.rint(total / F32(scales[2])), -128, 127).astype(np.int64)


def cleared(scales: tuple[float, float, float]) -> tuple[float, float, float]:
    """Return the scales with that of the output moved."""
    one = Sum(*map(rounding, scales))
    assert ties._move(one.output, [one])
    return float(one.first.scale), float(one.second.scale), float(one.output.scale)
