"""Warm a model up until its latency stands still, within bounds."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mobilekd.errors import DeviceError
from mobilekd.latency import percentile_ms


@dataclass(frozen=True, slots=True)
class WarmupRule:
    """When warm-up ends: the medians of the last windows agree, or a bound is reached.

    Attributes:
        window_runs: Least runs of a window.
        window_ms: A window has as many runs as last this long, by the window before: a governor needs tens of
            milliseconds to raise the frequency, and five runs of a tiny model are over before that.
        windows: How many windows must agree.
        tolerance: They agree when the largest median is at most this fraction above the smallest.
        max_windows, max_s: Bounds; `windows` are run in any case, however long a slow model takes for them.
    """

    window_runs: int = 5
    window_ms: float = 50.0
    windows: int = 3
    tolerance: float = 0.05
    max_windows: int = 60
    max_s: float = 10.0


STANDARD = WarmupRule()


@dataclass(frozen=True, slots=True)
class Warmup:
    """What a warm-up did.

    Attributes:
        runs: Warm-up runs.
        has_settled: The last windows agreed.
        medians_ms: Median of each window, in time order.
        reason: One sentence with the numbers.
    """

    runs: int
    has_settled: bool
    medians_ms: tuple[float, ...]
    reason: str


def warm_up(
    time_runs: Callable[[int], Sequence[float]],
    rule: WarmupRule = STANDARD,
    *,
    clock: Callable[[], float] = time.monotonic,
) -> Warmup:
    """Run a model until its latency stands still.

    Args:
        time_runs: Runs the model so many times and returns the wall time of each run in milliseconds.
        rule: When to stop.
        clock: Returns seconds.

    Raises:
        DeviceError: A window gave no sample.
    """
    began_s, runs = clock(), 0
    medians: list[float] = []
    while not _agree(medians, rule):
        can_compare = len(medians) >= rule.windows
        if can_compare and (len(medians) >= rule.max_windows or clock() - began_s >= rule.max_s):
            return Warmup(runs, has_settled=False, medians_ms=tuple(medians), reason=_unsettled(medians, runs, rule))
        samples = time_runs(_window_runs(medians, rule))
        if not samples:
            raise DeviceError("a warm-up window gave no time", code="MKD-508")
        runs += len(samples)
        medians.append(percentile_ms(samples, 50))
    return Warmup(runs, has_settled=True, medians_ms=tuple(medians), reason=f"stable after {runs} warm-up runs")


def _agree(medians: Sequence[float], rule: WarmupRule) -> bool:
    last = medians[-rule.windows :]
    return len(last) == rule.windows and max(last) - min(last) <= rule.tolerance * min(last)


def _window_runs(medians: Sequence[float], rule: WarmupRule) -> int:
    if not medians or medians[-1] <= 0:
        return rule.window_runs
    return max(rule.window_runs, math.ceil(rule.window_ms / medians[-1]))


def _unsettled(medians: Sequence[float], runs: int, rule: WarmupRule) -> str:
    last = medians[-rule.windows :]
    spread = (max(last) - min(last)) / min(last) if min(last) > 0 else math.inf
    return (
        f"warm-up never settled in {runs} runs: the medians of its last {rule.windows} windows differ by {spread:.1%}, "
        f"allowed {rule.tolerance:.1%}"
    )
