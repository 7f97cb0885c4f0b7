import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilekd.errors import DeviceError
from mobilekd.latency import median_interval_ms, percentile_ms, summarize

samples = st.lists(st.floats(0.001, 1000), min_size=1, max_size=60)


def test_percentile_of_a_hand_worked_list() -> None:
    assert percentile_ms([15.0, 20.0, 35.0, 40.0, 50.0], 30) == 20.0


def test_percentile_of_nothing_is_an_error() -> None:
    with pytest.raises(DeviceError, match="no timed run"):
        percentile_ms([], 50)


@given(samples, st.floats(0.1, 100))
def test_a_percentile_was_really_measured(samples_ms: list[float], q: float) -> None:
    assert percentile_ms(samples_ms, q) in samples_ms


@given(samples)
def test_percentiles_are_ordered(samples_ms: list[float]) -> None:
    summary = summarize(samples_ms)
    assert summary.p50_ms <= summary.p90_ms <= summary.p95_ms <= summary.p99_ms


@given(samples)
def test_the_interval_is_made_of_samples_and_repeats(samples_ms: list[float]) -> None:
    low, high = median_interval_ms(samples_ms, resamples=50)
    assert (low, high) == median_interval_ms(samples_ms, resamples=50)
    assert min(samples_ms) <= low <= high <= max(samples_ms)


def test_the_interval_of_equal_samples_is_a_point() -> None:
    assert median_interval_ms([3.0] * 20) == (3.0, 3.0)
