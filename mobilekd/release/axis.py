"""Axes of the report's plots: from a value to a place in percent, and where the ticks stand."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

_MARGIN = 0.03


@dataclass(frozen=True, slots=True)
class Axis:
    """A linear, logarithmic or square-root axis from low to high, drawn over 0 to 100 %."""

    low: float
    high: float
    kind: Literal["linear", "log", "root"]

    def place(self, value: float) -> float:
        """Return the place of a value, in percent of the axis; values outside stand at its ends."""
        value = max(value, self.low)
        bend = {"linear": float, "log": math.log10, "root": math.sqrt}[self.kind]
        low, high, value = (bend(one) for one in (self.low, self.high, value))
        return 100 * min(1.0, max(0.0, (value - low) / (high - low)))

    def ticks(self, wanted: int = 4) -> tuple[float, ...]:
        """Return round values on the axis, about as many as wanted."""
        return {"linear": _linear_ticks, "log": _log_ticks, "root": _root_ticks}[self.kind](self, wanted)


def linear_axis(values: Iterable[float], *, least_span: float = 0.0) -> Axis:
    """Return an axis that shows all values with a margin at both ends.

    Args:
        values: Not empty.
        least_span: Smallest distance of low and high, so that noise is not drawn as a cliff.
    """
    known = list(values)
    low, high = min(known), max(known)
    span = max(high - low, least_span, abs(high) * 1e-6, 1e-12)
    middle = (low + high) / 2
    reach = span * (0.5 + _MARGIN)
    return Axis(middle - reach, middle + reach, "linear")


def log_axis(values: Iterable[float]) -> Axis:
    """Return a logarithmic axis that shows all positive values with a margin at both ends."""
    known = [value for value in values if value > 0] or [1.0]
    low, high = math.log10(min(known)), math.log10(max(known))
    reach = max(high - low, 0.3) * (0.5 + _MARGIN)
    middle = (low + high) / 2
    return Axis(10 ** (middle - reach), 10 ** (middle + reach), "log")


def root_axis(high: float) -> Axis:
    """Return an axis from 0 to `high` that spreads small values and still shows zero."""
    return Axis(0.0, high * (1 + _MARGIN), "root")


def tick_label(value: float) -> str:
    """Return the shortest text of a tick.

    Example:
        >>> [tick_label(value) for value in (0.30000000000000004, 100.0, 0.001)]
        ['0.3', '100', '0.001']
    """
    return f"{value:.4g}"


def _linear_ticks(axis: Axis, wanted: int) -> tuple[float, ...]:
    raw = (axis.high - axis.low) / wanted
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * 0.999)
    first, last = math.ceil(axis.low / step), math.floor(axis.high / step)
    return tuple(index * step for index in range(first, last + 1))


def _log_ticks(axis: Axis, wanted: int) -> tuple[float, ...]:
    first, last = math.floor(math.log10(axis.low)), math.ceil(math.log10(axis.high))
    for factors in ((1,), (1, 3), (1, 2, 5)):
        ticks = [factor * 10.0**power for power in range(first, last + 1) for factor in factors]
        inside = [tick for tick in ticks if axis.low <= tick <= axis.high]
        if len(inside) >= wanted:
            break
    every = max(1, len(inside) // (2 * wanted))
    return tuple(inside[::every])


def _root_ticks(axis: Axis, wanted: int) -> tuple[float, ...]:
    """Return zero and round values, from the top down as near as their labels may stand."""
    top = math.floor(math.log10(axis.high))
    round_values = (factor * 10.0**power for power in range(top, top - 4, -1) for factor in (5, 2, 1))
    ticks: list[float] = []
    for value in round_values:
        above = axis.place(ticks[-1]) if ticks else 100.0 + 80 / wanted
        if value <= axis.high and min(above - axis.place(value), axis.place(value)) >= 80 / wanted:
            ticks.append(value)
    return (0.0, *reversed(ticks))
