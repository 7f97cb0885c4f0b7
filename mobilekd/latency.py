"""Latency statistics: percentiles of what was really measured, and how sure the median is."""

import math
import random
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
        raise DeviceError("no timed run finished", hint="raise benchmark.timed_runs above 0")
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
