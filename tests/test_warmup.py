from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilekd.errors import DeviceError
from mobilekd.warmup import Warmup, WarmupRule, warm_up

RULE = WarmupRule(window_runs=2, window_ms=0, windows=3, max_windows=20)


def warmed(medians: Sequence[float], rule: WarmupRule = RULE) -> Warmup:
    rest = iter(medians)

    def time_runs(runs: int) -> list[float]:
        return [next(rest)] * runs

    return warm_up(time_runs, rule, clock=lambda: 0.0)


def test_warm_up_stops_at_the_first_windows_that_agree() -> None:
    assert warmed([9.0, 4.0, 2.0, 1.0, 1.01, 1.02, 1.0]).medians_ms == (9.0, 4.0, 2.0, 1.0, 1.01, 1.02)


def test_warm_up_counts_its_runs() -> None:
    assert warmed([1.0, 1.0, 1.0]).runs == 6


def test_a_latency_that_never_stands_still_is_said_with_its_spread() -> None:
    found = warmed([1.0, 2.0] * 10)
    assert not found.has_settled
    assert found.reason == (
        "warm-up never settled in 40 runs: the medians of its last 3 windows differ by 100.0%, allowed 5.0%"
    )


def test_warm_up_ends_at_its_time() -> None:
    now = iter(range(100))
    rule = WarmupRule(max_s=4.0, tolerance=0.0)
    samples = iter(float(value) for value in range(1, 1000))
    found = warm_up(lambda runs: [next(samples) for _ in range(runs)], rule, clock=lambda: float(next(now)))
    assert len(found.medians_ms) == 6


def test_a_model_that_takes_longer_than_the_warm_up_may_is_still_compared_window_by_window() -> None:
    now = iter(range(0, 10_000, 100))
    found = warm_up(lambda runs: [30_000.0] * runs, WarmupRule(max_s=10.0), clock=lambda: float(next(now)))
    assert (found.has_settled, found.runs) == (True, 15)


def test_a_tiny_model_gets_windows_that_last() -> None:
    asked: list[int] = []

    def time_runs(runs: int) -> list[float]:
        asked.append(runs)
        return [0.01] * runs

    warm_up(time_runs, WarmupRule(window_runs=5, window_ms=50.0), clock=lambda: 0.0)
    assert asked == [5, 5000, 5000]


def test_a_window_without_a_time_is_an_error() -> None:
    nothing: Callable[[int], list[float]] = lambda runs: []  # noqa: E731
    with pytest.raises(DeviceError, match="gave no time"):
        warm_up(nothing, RULE)


@given(st.lists(st.floats(0.5, 2.0), min_size=20, max_size=20), st.integers(-8, 8))
def test_a_faster_machine_settles_in_the_same_window(medians: list[float], power: int) -> None:
    scaled = [median * 2.0**power for median in medians]
    assert len(warmed(scaled).medians_ms) == len(warmed(medians).medians_ms)
