"""The sum of two int8 values as kernels compute it: each has an error of its own, and parts from the others near a tie.

Real values are (integer - zero_point) * scale; what is returned are steps of the output from its zero point, unclamped.
tests/device/test_sums.py runs ONNX Runtime's kernels of x86 and Arm on all pairs of integers.
"""

import math

import torch
from torch import Tensor

Scheme = tuple[float, int]
"""Scale and zero point of int8 values."""

_UINT8 = 128
_ORT_BITS, _XNNPACK_BITS = 22, 21


def rounded(pair: tuple[Tensor, Tensor], schemes: tuple[Scheme, ...], sign: int) -> tuple[Tensor, ...]:
    """Return what each kernel makes of some pairs of integers, int64 each.

    Args:
        pair: First and second integer of each pair, int64 [n] each.
        schemes: Of the first, the second and the output.
        sign: -1 for a difference.
    """
    (scale_a, zero_a), (scale_b, zero_b), (scale_c, _) = schemes
    first, second = pair[0] - zero_a, sign * (pair[1] - zero_b)
    scales = torch.tensor((scale_a, scale_b, scale_c), dtype=torch.float32)
    return (
        *_trained(first, second, scales),
        *_folded(pair, schemes, sign),
        *_fixed(first, second, scales, _ORT_BITS),
        *_fixed(first, second, scales, _XNNPACK_BITS),
    )


def _trained(first: Tensor, second: Tensor, scales: Tensor) -> tuple[Tensor, ...]:
    """Return the float32 sum, divided by the output's scale (the ONNX file) and times its inverse (the fake quant)."""
    total = first.float() * scales[0] + second.float() * scales[1]
    return tuple(one.round().long() for one in (total / scales[2], total * (1 / scales[2])))


def _folded(pair: tuple[Tensor, Tensor], schemes: tuple[Scheme, ...], sign: int) -> tuple[Tensor, ...]:
    """Return float32 sums of uint8 values, zero points in one constant: ONNX Runtime on x86, without and with FMA."""
    scales = torch.tensor([scale for scale, _ in schemes], dtype=torch.float32)
    ratios = scales[:2] / scales[2] * torch.tensor((1.0, float(sign)))
    zeros = torch.tensor([zero + _UINT8 for _, zero in schemes], dtype=torch.float32)
    constant = zeros[2] - (ratios[0] * zeros[0] + ratios[1] * zeros[1])
    first, second = ((one + _UINT8).float() for one in pair)
    plain = (constant + first * ratios[0]) + second * ratios[1]
    fused = _fma(second, ratios[1], _fma(first, ratios[0], constant))
    return tuple((one.round() - zeros[2]).long() for one in (plain, fused))


def _fma(values: Tensor, ratio: Tensor, added: Tensor) -> Tensor:
    """Return values * ratio + added, rounded once: a product of two float32 is exact in float64."""
    return (values.double() * ratio.double() + added.double()).float()


def _fixed(first: Tensor, second: Tensor, scales: Tensor, bits: int) -> tuple[Tensor, ...]:
    """Return sums by integer multipliers, the larger one of so many bits; halves rounded away from 0, and up."""
    ratios = (scales[:2] / scales[2]).double()
    shift = bits - math.frexp(float(ratios.max()))[1]
    multipliers = (ratios * 2.0**shift).round().long()
    total = first * multipliers[0] + second * multipliers[1]
    half = 1 << (shift - 1)
    return (total - (total < 0).long() + half) >> shift, (total + half) >> shift
