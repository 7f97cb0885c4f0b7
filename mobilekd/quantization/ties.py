"""Sums that the kernels we know round alike: no two integers of their inputs add up to the middle of two steps.

The sum of two int8 tensors is (a · scale_a ± b · scale_b) / scale_out, rounded, and every runtime computes it with an
error of its own (`sum_kernels`). Near the middle of two steps they part. But a and b have 256 values each, so all sums
are known before the model ships: the scale of the output is moved by some millionths until all kernels agree on all of
them, and none is very near to a middle. That holds for every image.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from mobilekd.quantization import sum_kernels
from mobilekd.quantization.fake_quant import TensorFakeQuant
from mobilekd.quantization.graph_tools import aten
from mobilekd.quantization.quantizer import CLAMPS

_SIGNS = {aten.add.Tensor: 1, aten.add_.Tensor: 1, aten.sub.Tensor: -1}

_MARGIN_STEPS = 2.0**-16
"""How near to the middle of two steps no sum may be, whatever the kernel, where both scales are below the output's."""
_NEAR_STEPS = 2.0**-12
"""How near to the middle of two steps the kernels below are asked, where both scales are below the output's.

A multiplier of 21 bits is off by 2^-22 at most, and 256 of those are 2^-14; a float32 of 512 is off by 2^-15.
"""
_STRIDE = 2.0**-18
"""Relative distance of two scales that are tried: it moves the largest sum by half a thousandth of a step."""
_MOST_TRIES = 1024
"""Scales that are tried: up to 0.2 % from the trained one."""


@dataclass(frozen=True, slots=True)
class Sum:
    """One addition or subtraction of two rounded tensors.

    Attributes:
        first, second: Its inputs.
        output: What it writes, behind a clamp where there is one.
        sign: -1 for a subtraction.
    """

    first: TensorFakeQuant
    second: TensorFakeQuant
    output: TensorFakeQuant
    sign: int = 1

    def margin_steps(self) -> float:
        """Return how near to the middle of two steps no sum may be.

        Multipliers of a fixed number of bits are coarser where an input's scale is above the output's.
        """
        return _MARGIN_STEPS * self._coarseness()

    def nearest_tie_steps(self) -> float:
        """Return the distance of the nearest sum to the middle of two steps, over all pairs of integers.

        Sums beyond the ends of the output's range are clamped, so how they are rounded is of no matter.
        """
        return float(self._distances().min())

    def is_clear(self) -> bool:
        """Return whether every kernel rounds every sum alike."""
        distances = self._distances()
        if float(distances.min()) <= self.margin_steps():
            return False
        first, second = torch.nonzero(distances < _NEAR_STEPS * self._coarseness(), as_tuple=True)
        rounded = sum_kernels.rounded(
            (first + self.first.quant_min, second + self.second.quant_min),
            tuple((float(one.scale), int(one.zero_point)) for one in (self.first, self.second, self.output)),
            self.sign,
        )
        return all(bool((one == rounded[0]).all()) for one in rounded[1:])

    def _coarseness(self) -> float:
        ratio = max(float(one.scale) for one in (self.first, self.second)) / float(self.output.scale)
        return float(2.0 ** max(0, math.frexp(ratio)[1]))

    def _distances(self) -> Tensor:
        """Return the distance of each sum to the middle of two steps, [256, 256]; 1 where it is clamped."""
        output = self.output
        scale = output.scale.double()
        found = _values(self.first)[:, None] / scale + self.sign * _values(self.second)[None, :] / scale
        inside = (found > output.quant_min - output.zero_point) & (found < output.quant_max - output.zero_point)
        return torch.where(inside, (found - found.floor() - 0.5).abs(), 1.0)


def clear_sums(prepared: GraphModule) -> tuple[Sum, ...]:
    """Move the scale of every sum's output, in place, until no sum is near the middle of two steps.

    Call after `settle_scales`, before `snap_biases`.

    Returns:
        The sums for which no such scale was found; they keep the trained one.
    """
    found = tuple(sums(prepared))
    done: list[Sum] = []
    failed: list[Sum] = []
    for output in dict.fromkeys(one.output for one in found):
        own = [one for one in found if one.output is output]
        readers = [one for one in done if output in (one.first, one.second)]
        if not _move(output, [*own, *readers]):
            failed += own
        done += [one for one in own if one not in failed]
    return tuple(failed)


def sums(prepared: GraphModule) -> Iterator[Sum]:
    """Yield the sums of two rounded tensors whose result is rounded, in graph order."""
    parts = dict(prepared.named_modules(remove_duplicate=False))  # tensors of one scale share one module

    def rounding(node: object) -> TensorFakeQuant | None:
        found = parts.get(str(node.target)) if isinstance(node, Node) and node.op == "call_module" else None
        return found if isinstance(found, TensorFakeQuant) else None

    for node in prepared.graph.nodes:
        if node.target not in _SIGNS or len(node.args) < 2 or node.kwargs.get("alpha", 1) != 1:
            continue
        first, second = rounding(node.args[0]), rounding(node.args[1])
        output = next((one for one in map(rounding, _behind_clamp(node).users) if one is not None), None)
        if first is not None and second is not None and output is not None:
            yield Sum(first, second, output, _SIGNS[node.target])


def told(unclear: Sequence[Sum]) -> str:
    """Return why sums are not clear, by the names of what they write."""
    names = ", ".join(dict.fromkeys(one.output.name for one in unclear))
    return (
        f"no scale within {_MOST_TRIES // 2 * _STRIDE:.1%} of the trained one keeps {names} off the middle of two steps"
    )


def _behind_clamp(node: Node) -> Node:
    users = list(node.users)
    return users[0] if len(users) == 1 and users[0].target in CLAMPS else node


def _move(output: TensorFakeQuant, bound: Sequence[Sum]) -> bool:
    """Set the scale nearest to the trained one with which all sums are clear; keep it where there is none."""
    trained = output.scale.clone()
    for number in range(_MOST_TRIES):
        steps = (number + 1) // 2 * (1 if number % 2 else -1)
        output.scale.copy_((trained.double() * (1 + steps * _STRIDE)).float())
        if all(one.is_clear() for one in bound):
            return True
    output.scale.copy_(trained)
    return False


def _values(part: TensorFakeQuant) -> Tensor:
    """Return the real values of all integers of a tensor, [256], in float64."""
    integers = torch.arange(part.quant_min, part.quant_max + 1, dtype=torch.float64)
    return (integers - part.zero_point) * part.scale.double()
