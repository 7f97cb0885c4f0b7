"""Mixed precision: how few of the worst layers must stay float for top-1 to hold."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch.fx import GraphModule

from mobilekd.errors import StageError
from mobilekd.quantization.sensitivity import LayerSensitivity, layer_costs

_FP32_EXTRA_BYTES = 3
"""Bytes of a float32 weight less those of an int8 one."""

_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Mixed:
    """The layers that `max_top1_drop` keeps in float, and their price. Top-1 is that of calibrated networks, untrained.

    Attributes:
        max_top1_drop: Top-1 that may be lost, as a fraction.
        layers: Kept in float, the worst first; empty when int8 throughout holds.
        top1_float: Top-1 of the float student on the judged images.
        top1_int8: Top-1 with every layer in int8, but those of keep_float.
        top1_mixed: Top-1 with `layers` in float.
        extra_bytes: Bytes that the weights of `layers` take in float32 beyond int8.
        float_macs_share: Multiply-accumulates of `layers` among those of all layers with a weight.
    """

    max_top1_drop: float
    layers: tuple[str, ...]
    top1_float: float
    top1_int8: float
    top1_mixed: float
    extra_bytes: int
    float_macs_share: float

    def told(self) -> str:
        """Return what stays float, why, and the price, in words."""
        allowed = f"max_top1_drop allows {self.max_top1_drop:.2%} below the float student's {self.top1_float:.2%}"
        if not self.layers:
            return f"calibrated int8 has top-1 {self.top1_int8:.2%}; {allowed}: no layer stays float for it"
        return (
            f"{len(self.layers)} layer(s) stay float: {', '.join(self.layers)}. Top-1 without them in float"
            f" {self.top1_int8:.2%}, with {self.top1_mixed:.2%}; {allowed}. Price: {self.extra_bytes:,} bytes more, and"
            f" {self.float_macs_share:.1%} of the multiply-accumulates in float"
        )


@dataclass(frozen=True, slots=True)
class Trial:
    """How a choice of float layers is tried.

    Attributes:
        calibrated: A set of layers to keep in float -> the calibrated network.
        top1: A calibrated network -> its top-1 on the judged images.
        rank: A calibrated network -> its int8 layers, the worst first.
    """

    calibrated: Callable[[frozenset[str]], GraphModule]
    top1: Callable[[GraphModule], float]
    rank: Callable[[GraphModule], Sequence[LayerSensitivity]]


def choose_float_layers(
    trial: Trial, top1_float: float, max_top1_drop: float, keep_float: frozenset[str]
) -> tuple[GraphModule, Mixed]:
    """Return a calibrated network that loses no more than allowed, and what of it stays float.

    The worst 1, 2, 4, ... layers of the ranking are tried until top-1 holds, then the halves between. Every
    network that is returned was calibrated and judged as a whole; that fewer layers would do as well is left out only
    so far as top-1 falls with each layer more in int8.

    Args:
        trial: How networks are made and judged.
        top1_float: Of the float network, on the judged images.
        max_top1_drop: Fraction.
        keep_float: Layers that stay float in any case.

    Raises:
        StageError: Top-1 does not hold even with all layers in float.
    """
    network = trial.calibrated(keep_float)
    top1_int8 = top1_mixed = trial.top1(network)
    least = top1_float - max_top1_drop - _ROUNDING
    kept: tuple[str, ...] = ()
    if top1_int8 < least:
        names = tuple(one.layer for one in trial.rank(network))

        def holds(count: int) -> bool:
            nonlocal network, top1_mixed, kept
            tried = trial.calibrated(keep_float | frozenset(names[:count]))
            found = trial.top1(tried)
            if found >= least:  # the last one that holds is the one with the fewest layers
                network, top1_mixed, kept = tried, found, names[:count]
            return found >= least

        if not _find_smallest(len(names), holds):
            raise _out_of_reach(trial, keep_float | frozenset(names), (top1_float, top1_int8, max_top1_drop))
    costs = layer_costs(network)
    inside = [one for one in costs if one.layer in kept]
    return network, Mixed(
        max_top1_drop=max_top1_drop,
        layers=kept,
        top1_float=top1_float,
        top1_int8=top1_int8,
        top1_mixed=top1_mixed,
        extra_bytes=_FP32_EXTRA_BYTES * sum(one.weights for one in inside),
        float_macs_share=sum(one.macs for one in inside) / sum(one.macs for one in costs),
    )


def _out_of_reach(trial: Trial, every: frozenset[str], figures: tuple[float, float, float]) -> StageError:
    top1_float, top1_int8, max_top1_drop = figures
    return StageError(
        f"top-1 is {trial.top1(trial.calibrated(every)):.2%} with every layer in float and {top1_int8:.2%} in int8;"
        f" the float student's is {top1_float:.2%}, and max_top1_drop allows {max_top1_drop:.2%} less",
        hint="what is left is the rounding of tensors between layers: quantize.activation_range sets their ranges; or"
        " raise max_top1_drop in the profile",
        code="MKD-411",
    )


def _find_smallest(most: int, holds: Callable[[int], bool]) -> bool:
    """Try counts in 1..most until the smallest that holds was the last that held; False when not even the most does."""
    too_few, count = 0, min(1, most)
    while not count or not holds(count):
        if count == most:
            return False
        too_few, count = count, min(2 * count, most)
    while count - too_few > 1:
        middle = (too_few + count) // 2
        if holds(middle):
            count = middle
        else:
            too_few = middle
    return True
