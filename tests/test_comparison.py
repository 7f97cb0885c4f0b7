import math
import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilekd.comparison import compare, least_rounds, log_ratios, signed_rank_interval
from mobilekd.errors import DeviceError

figures = st.lists(st.floats(-1, 1), min_size=8, max_size=16)


def blocks(p50_ms: float, rounds: int = 10, jitter: float = 0.002, seed: int = 0) -> list[list[float]]:
    """Two blocks of nine runs a round, with log-normal jitter."""
    rng = random.Random(seed)
    return [[p50_ms * math.exp(rng.gauss(0, jitter)) for _ in range(9)] for _ in range(2 * rounds)]


def drifting_pair(rng: random.Random, ratio: float) -> tuple[list[list[float]], list[list[float]]]:
    """Fifteen mirrored rounds on a machine that slows down by 20 %, loses 15 % in a step and is preempted."""
    pair: tuple[list[list[float]], list[list[float]]] = ([], [])
    step = rng.randrange(15, 45)
    for number in range(15):
        first = rng.randrange(2)
        for place, model in enumerate((first, 1 - first, 1 - first, first)):
            at = 4 * number + place
            speed = math.exp(0.2 * at / 60 + (0.15 if at > step else 0) + rng.gauss(0, 0.01))
            runs = [speed * (ratio if model else 1) * rng.lognormvariate(0, 0.03) for _ in range(15)]
            pair[model].append([run * (3 if rng.random() < 0.1 else 1) for run in runs])
    return pair


def share(ratio: float, verdict: str, trials: int = 50) -> float:
    rng = random.Random(7)
    return sum(compare(*drifting_pair(rng, ratio)).verdict == verdict for _ in range(trials)) / trials


def test_equal_models_on_a_drifting_machine_show_no_difference_in_95_of_100() -> None:
    assert share(1.0, "no difference") >= 0.95


def test_a_model_that_is_five_percent_slower_is_called_slower_in_90_of_100() -> None:
    assert share(1.05, "slower") >= 0.90


def test_a_model_that_is_five_percent_faster_is_called_faster_in_90_of_100() -> None:
    assert share(1 / 1.05, "faster") >= 0.90


def test_an_interval_covers_the_true_ratio_in_95_of_100() -> None:
    rng = random.Random(3)
    found = [compare(*drifting_pair(rng, 1.03)).interval for _ in range(50)]
    assert sum(low <= 1.03 <= high for low, high in found) >= 48


def test_the_interval_is_the_one_of_the_published_table() -> None:
    # Hollander, Wolfe & Chicken: for n = 10, P(W >= 47) = 0.024 and P(W >= 46) = 0.032, so 8 sums are rejected a side.
    values = [float(2**power) for power in range(10)]
    walsh = sorted((one + other) / 2 for index, one in enumerate(values) for other in values[index:])
    assert signed_rank_interval(values, 0.95)[1:] == (walsh[8], walsh[-9])


def test_a_small_real_difference_is_told_and_not_called_one() -> None:
    found = compare(blocks(1.0, jitter=0.0005), blocks(1.005, jitter=0.0005, seed=1))
    assert found.verdict == "no difference"
    assert found.reason == (
        "no difference: B takes 0.5% more time than A (99 % interval +0.5% to +0.5%, 10 rounds); "
        "real, but not beyond the margin of 1.0%"
    )


def test_equal_models_on_a_still_machine_are_equivalent() -> None:
    assert compare(blocks(1.0), blocks(1.0, seed=1)).is_equivalent


def test_rounds_that_cannot_tell_say_how_much_is_not_excluded() -> None:
    found = compare(blocks(1.0, jitter=0.3), blocks(1.0, jitter=0.3, seed=1))
    assert not found.is_equivalent
    assert "the rounds can't tell: up to" in found.reason


def test_too_few_rounds_are_an_error_that_says_how_many_are_needed() -> None:
    with pytest.raises(DeviceError) as caught:
        compare(blocks(1.0, rounds=7), blocks(1.0, rounds=7))
    assert "at least 8 rounds" in caught.value.hint


def test_blocks_that_are_no_whole_rounds_are_an_error() -> None:
    with pytest.raises(DeviceError, match="19 and 19 blocks are not whole rounds of 2"):
        compare(blocks(1.0)[1:], blocks(1.0)[1:])


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_a_time_that_is_none_is_an_error(bad: float) -> None:
    with pytest.raises(DeviceError, match="not above 0 ms"):
        compare([[bad], *blocks(1.0)[1:]], blocks(1.0))


def test_a_step_in_the_middle_of_a_mirrored_round_cancels() -> None:
    slow_half = [[1.0], [1.3]]
    assert log_ratios(slow_half, slow_half) == [0.0]


def test_a_ratio_is_found_that_a_coarse_clock_can_only_show_in_the_share_of_ticks() -> None:
    # 1.02 ms on a clock of 0.1 ms: a fifth of the runs show 1.1, and the plain medians are equal.
    quarter = [[1.0] * 8 + [1.1] * 2] * 16
    found = compare([[1.0] * 10] * 16, quarter)
    assert found.ratio == pytest.approx(1.02, abs=0.01)
    assert found.ratio > 1.005


@given(figures)
def test_exchanging_the_models_mirrors_the_interval(values: list[float]) -> None:
    center, low, high = signed_rank_interval(values, 0.99)
    assert signed_rank_interval([-value for value in values], 0.99) == pytest.approx((-center, -high, -low))


@given(figures)
def test_the_estimate_lies_within_its_interval(values: list[float]) -> None:
    center, low, high = signed_rank_interval(values, 0.99)
    assert low <= center <= high


@given(figures)
def test_less_confidence_never_widens_the_interval(values: list[float]) -> None:
    _, low, high = signed_rank_interval(values, 0.99)
    _, narrow_low, narrow_high = signed_rank_interval(values, 0.9)
    assert low <= narrow_low <= narrow_high <= high


@given(st.integers(-6, 6), st.integers(0, 5))
def test_a_faster_machine_gives_the_same_ratio(power: int, seed: int) -> None:
    pair = blocks(8.0, seed=seed), blocks(8.4, seed=seed + 1)
    scaled = [_scaled(one, 2.0**power) for one in pair]
    assert compare(*scaled).ratio == pytest.approx(compare(*pair).ratio, rel=1e-5)


@given(st.sampled_from([0.5, 0.9, 0.95, 0.99, 0.999]))
def test_least_rounds_is_the_first_number_that_gives_an_interval(confidence: float) -> None:
    needed = least_rounds(confidence)
    signed_rank_interval([0.0] * needed, confidence)
    with pytest.raises(DeviceError):
        signed_rank_interval([0.0] * (needed - 1), confidence)


def test_json_has_the_verdict_and_a_list_for_the_interval() -> None:
    document = compare(blocks(1.0), blocks(1.2, seed=1)).to_json()
    assert (document["verdict"], document["rounds"], document["is_equivalent"]) == ("slower", 10, False)
    assert isinstance(document["interval"], list)


def _scaled(blocks_ms: Sequence[Sequence[float]], factor: float) -> list[list[float]]:
    return [[sample * factor for sample in block] for block in blocks_ms]
