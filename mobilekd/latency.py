"""Latency statistics: percentiles of what was really measured, and how sure the median is."""

import math
import random
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from mobilekd.errors import DeviceError


@dataclass(frozen=True, slots=True)
class LatencySummary:
    """Percentiles of one model's timed runs, and a bootstrap 95 % interval of the median; all in milliseconds."""

    p50_ms: float
    p90_ms: float
    p95_ms: float
    p99_ms: float
    ci95_ms: tuple[float, float]
    timed_runs: int

    @property
    def relative_width(self) -> float:
        """Return the width of the interval as a fraction of the median."""
        low, high = self.ci95_ms
        return (high - low) / self.p50_ms


def percentile_ms(samples_ms: Sequence[float], q: float) -> float:
    """Return the q-th latency percentile by the nearest-rank rule.

    Nearest rank returns a latency that was really measured; interpolation
    invents one. Source: Hyndman & Fan 1996, type 1.

    Args:
        samples_ms: Wall time of each timed run, in milliseconds; not empty.
        q: Percentile in (0, 100].

    Raises:
        DeviceError: No sample was given.

    Example:
        >>> percentile_ms([4.0, 1.0, 3.0, 2.0], 90)
        4.0
    """
    if not samples_ms:
        raise DeviceError("no timed run finished", hint="run it again: mobilekd bench", code="MKD-508")
    rank = math.ceil(q * len(samples_ms) / 100)  # multiply first: 7 / 100 * 100 is 7.000000000000001
    return sorted(samples_ms)[rank - 1]


def median_interval_ms(samples_ms: Sequence[float], *, resamples: int = 1000, seed: int = 0) -> tuple[float, float]:
    """Return the bootstrap 95 % interval of the median (percentile method, Efron 1979).

    Args:
        samples_ms: Wall time of each timed run, in milliseconds; not empty.
        resamples: Number of bootstrap samples.
        seed: Seed of the resampling, so that equal samples give an equal interval.
    """
    rng = random.Random(seed)
    medians = sorted(percentile_ms(rng.choices(samples_ms, k=len(samples_ms)), 50) for _ in range(resamples))
    return percentile_ms(medians, 2.5), percentile_ms(medians, 97.5)


def summarize(samples_ms: Sequence[float]) -> LatencySummary:
    """Return the percentiles and the interval of one model's timed runs."""
    p50, p90, p95, p99 = (percentile_ms(samples_ms, q) for q in (50, 90, 95, 99))
    return LatencySummary(p50, p90, p95, p99, median_interval_ms(samples_ms), len(samples_ms))


def block_interval_ms(
    blocks_ms: Sequence[Sequence[float]], *, resamples: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """Return the bootstrap 95 % interval of the median of all samples, with whole blocks as the unit of resampling.

    Runs of one block share the machine's state, so resampling single runs gives an interval that is too narrow. The
    rarer the states in which the machine was measured, the fewer blocks tell them apart: below about ten blocks this
    interval is too narrow as well. Source: Davison & Hinkley 1997, section 3.8 (sampling of clusters).

    Args:
        blocks_ms: Wall time of each timed run of each block, in milliseconds; no block is empty.
        resamples: Number of bootstrap samples.
        seed: Seed of the resampling, so that equal samples give an equal interval.

    Raises:
        DeviceError: There is no block, or one without a sample.
    """
    if not blocks_ms or not all(blocks_ms):
        raise DeviceError("a block has no timed run", hint="run it again: mobilekd bench", code="MKD-508")
    ordered = [sorted(block) for block in blocks_ms]
    values = sorted({sample for block in ordered for sample in block})
    rng = random.Random(seed)
    drawn = (Counter(rng.choices(range(len(ordered)), k=len(ordered))) for _ in range(resamples))
    medians = sorted(_weighted_median_ms(ordered, values, counts) for counts in drawn)
    return percentile_ms(medians, 2.5), percentile_ms(medians, 97.5)


def summarize_blocks(blocks_ms: Sequence[Sequence[float]]) -> LatencySummary:
    """Return the percentiles over all timed runs of one model, and the interval that `block_interval_ms` gives."""
    interval = block_interval_ms(blocks_ms)
    samples = sorted(sample for block in blocks_ms for sample in block)
    p50, p90, p95, p99 = (percentile_ms(samples, q) for q in (50, 90, 95, 99))
    return LatencySummary(p50, p90, p95, p99, interval, len(samples))


def _weighted_median_ms(ordered: Sequence[Sequence[float]], values: Sequence[float], counts: Counter[int]) -> float:
    """Return the nearest-rank median of the blocks, each taken as often as counts says; by bisection over values."""
    rank = math.ceil(sum(count * len(ordered[block]) for block, count in counts.items()) / 2)
    low, high = 0, len(values) - 1
    while low < high:
        middle = (low + high) // 2
        below = sum(count * bisect_right(ordered[block], values[middle]) for block, count in counts.items())
        low, high = (low, middle) if below >= rank else (middle + 1, high)
    return values[low]
