import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilekd.errors import DeviceError
from mobilekd.latency import block_interval_ms, median_interval_ms, percentile_ms, summarize, summarize_blocks

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


blocks = st.lists(st.lists(st.floats(0.001, 1000), min_size=1, max_size=10), min_size=1, max_size=10)


@given(blocks)
def test_the_interval_over_blocks_is_made_of_samples(blocks_ms: list[list[float]]) -> None:
    samples_ms = {sample for block in blocks_ms for sample in block}
    assert set(block_interval_ms(blocks_ms, resamples=50)) <= samples_ms


@given(blocks)
def test_a_bisected_median_is_the_one_of_the_pooled_runs(blocks_ms: list[list[float]]) -> None:
    pooled = [sample for block in blocks_ms for sample in block]
    assert block_interval_ms([pooled], resamples=1)[0] == percentile_ms(pooled, 50)


def test_blocks_in_two_states_of_the_machine_widen_the_interval() -> None:
    blocks_ms = [[1.0] * 100] * 5 + [[2.0] * 100] * 5
    assert block_interval_ms(blocks_ms) == (1.0, 2.0)


def test_a_summary_of_blocks_has_the_percentiles_of_all_runs() -> None:
    summary = summarize_blocks([[1.0, 4.0], [2.0, 3.0]])
    assert (summary.p50_ms, summary.p90_ms, summary.timed_runs) == (2.0, 4.0, 4)


def test_an_empty_block_is_an_error() -> None:
    with pytest.raises(DeviceError, match="a block has no timed run"):
        block_interval_ms([[1.0], []])
