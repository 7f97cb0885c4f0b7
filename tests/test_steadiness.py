import math
import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobilekd.device_state import CoreState, DeviceState, ThermalZone
from mobilekd.errors import DeviceError
from mobilekd.steadiness import Evidence, Limits, assess, drift_of, evidence_of
from mobilekd.warmup import Warmup

medians = st.lists(st.floats(0.1, 10.0), min_size=3, max_size=30)


def blocks(shape: Callable[[float], float], jitter: float = 0.002, seed: int = 0) -> list[list[float]]:
    """Thirty blocks of nine runs; shape gives the latency in ms at a share of the time."""
    rng = random.Random(seed)
    return [[shape(at / 29) * math.exp(rng.gauss(0, jitter)) for _ in range(9)] for at in range(30)]


def still(at: float) -> float:
    return 2.0


def rising(at: float) -> float:
    return 2.0 * (1 + 0.2 * at)


def test_a_still_model_is_trusted() -> None:
    assert assess(blocks(still)).verdict == "trusted"


def test_a_wide_interval_is_noise_and_is_told_with_what_is_allowed() -> None:
    found = assess(blocks(still, jitter=0.15))
    assert found.verdict == "noisy"
    assert found.reason == (
        f"noisy: the 95 % interval of the median is {found.summary.relative_width:.1%} wide, allowed 3%"
    )


def test_a_slow_down_with_a_falling_frequency_is_throttling() -> None:
    found = assess(blocks(rising), evidence=Evidence(frequency_khz=(2_400_000, 1_800_000)))
    assert found.verdict == "throttled"
    assert found.reason.endswith("while the frequency fell from 2.4 to 1.8 GHz")


def test_a_slow_down_with_a_rising_temperature_is_throttling() -> None:
    found = assess(blocks(rising), evidence=Evidence((2_400_000, 2_400_000), (41.0, 78.0)))
    assert found.reason.endswith("while the temperature rose from 41 to 78 °C")


def test_a_slow_down_on_a_device_that_shows_nothing_is_throttling_by_time_alone() -> None:
    found = assess(blocks(rising))
    assert found.verdict == "throttled"
    assert "shows neither frequency nor temperature" in found.reason


def test_a_slow_down_while_nothing_changed_is_noise() -> None:
    found = assess(blocks(rising), evidence=Evidence((2_400_000, 2_400_000), (41.0, 41.0)))
    assert found.verdict == "noisy"
    assert "block medians rose by 13%" in found.reason


def test_a_step_of_the_frequency_in_the_middle_is_throttling() -> None:
    assert assess(blocks(lambda at: 2.0 if at < 0.5 else 2.6)).verdict == "throttled"


def test_a_latency_that_falls_is_noise() -> None:
    found = assess(blocks(lambda at: 2.0 - 0.4 * at))
    assert found.verdict == "noisy"
    assert "fell by" in found.reason


def test_a_disturbance_without_a_trend_is_noise() -> None:
    found = assess(blocks(lambda at: 2.6 if 2 / 29 <= at < 8 / 29 else 2.0))
    assert found.drift
    assert found.drift.p_value > Limits().p_value
    assert found.reason == (
        "noisy: block medians fell by 23% during the measurement, allowed 5%; other work may have ended"
    )


def test_a_core_that_was_held_back_from_the_start_is_throttled_however_steady_it_is() -> None:
    found = assess(blocks(still), evidence=Evidence(capped="cpu4 was held at 1.0 GHz"))
    assert (found.verdict, found.reason) == ("throttled", "throttled: cpu4 was held at 1.0 GHz")


def test_a_device_with_a_burden_is_not_trusted_however_steady_it_is() -> None:
    found = assess(blocks(still), evidence=Evidence(burdened="the device was at 85 °C"))
    assert (found.verdict, found.reason) == ("noisy", "noisy: the device was at 85 °C")


def test_few_blocks_are_not_trusted() -> None:
    assert assess(blocks(still)[:7]).reason == "noisy: 7 blocks tell too little of the machine, at least 8 are needed"


def test_a_warm_up_that_never_settled_is_not_trusted() -> None:
    warmup = Warmup(40, has_settled=False, medians_ms=(1.0, 2.0), reason="warm-up never settled in 40 runs")
    assert assess(blocks(still), warmup=warmup).reason == "noisy: warm-up never settled in 40 runs"


def test_still_models_are_called_throttled_or_noisy_in_at_most_1_of_30() -> None:
    verdicts = [assess(blocks(still, jitter=0.02, seed=seed)).verdict for seed in range(30)]
    assert verdicts.count("trusted") >= 29


def test_preemptions_of_one_run_in_ten_do_not_spoil_the_median() -> None:
    rng = random.Random(0)
    hit = [[run * (4 if rng.random() < 0.1 else 1) for run in block] for block in blocks(still, jitter=0.01)]
    assert assess(hit).verdict == "trusted"


def test_mann_kendall_of_a_hand_worked_list() -> None:
    # Six rising values: S = 15, variance 28.33, z = 14 / 5.323 = 2.630, two-sided p = 0.00853.
    assert drift_of([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).p_value == pytest.approx(0.00853, abs=2e-5)


def test_ties_of_a_coarse_clock_are_corrected_for() -> None:
    # 1 1 2 2: S = 4, variance (156 - 2 * 18) / 18 = 6.667, z = 3 / 2.582 = 1.162, two-sided p = 0.2453.
    assert drift_of([1.0, 1.0, 2.0, 2.0]).p_value == pytest.approx(0.2453, abs=1e-4)


@given(medians)
def test_reversing_a_drift_changes_its_sign_and_not_its_certainty(values: list[float]) -> None:
    forward, backward = drift_of(values), drift_of(values[::-1])
    assert backward.p_value == forward.p_value
    assert (1 + forward.change) * (1 + backward.change) == pytest.approx(1)


@given(medians)
def test_equal_medians_have_no_drift(values: list[float]) -> None:
    found = drift_of([values[0]] * len(values))
    assert (found.change, found.p_value) == (0.0, 1.0)


@settings(max_examples=25)
@given(st.lists(st.lists(st.floats(0.5, 2.0), min_size=1, max_size=5), min_size=3, max_size=12), st.integers(-8, 8))
def test_scaling_all_times_changes_no_verdict(times: list[list[float]], power: int) -> None:
    scaled = [[time * 2.0**power for time in block] for block in times]
    assert assess(scaled).reason == assess(times).reason


@settings(max_examples=25)
@given(st.lists(st.lists(st.floats(0.5, 2.0), min_size=1, max_size=5), min_size=3, max_size=12), st.randoms())
def test_the_order_of_runs_within_a_block_changes_no_verdict(times: list[list[float]], rng: random.Random) -> None:
    shuffled = [rng.sample(block, len(block)) for block in times]
    assert assess(shuffled) == assess(times)


@settings(max_examples=25)
@given(st.lists(st.lists(st.floats(0.5, 2.0), min_size=1, max_size=5), min_size=8, max_size=12))
def test_wider_limits_never_take_trust_away(times: list[list[float]]) -> None:
    lax = Limits(interval_width=10.0, drift=10.0)
    assert assess(times, limits=lax).verdict == "trusted"


def test_a_clock_that_shows_zero_is_an_error() -> None:
    with pytest.raises(DeviceError, match="0 ms"):
        assess([[0.0]])


def test_evidence_is_the_fall_from_the_highest_frequency_and_the_rise_of_temperature() -> None:
    readings = [(600_000, 40), (2_400_000, 60), (1_800_000, 78)]
    states = [
        DeviceState((CoreState(0, "", khz, None, None),), (ThermalZone("thermal_zone0", "cpu", 1000 * celsius),))
        for khz, celsius in readings
    ]
    assert evidence_of(states) == Evidence((2_400_000, 1_800_000), (40.0, 78.0))


def running_at(*khz: int) -> list[DeviceState]:
    return [DeviceState((CoreState(0, "", each, None, None),)) for each in khz]


def test_one_core_at_rest_after_the_last_block_is_no_evidence() -> None:
    found = evidence_of(running_at(600_000, *[2_400_000] * 8, 600_000))
    assert found.frequency_khz == (2_400_000, 2_400_000)


def test_a_frequency_that_stays_low_to_the_end_is_evidence() -> None:
    found = evidence_of(running_at(*[2_400_000] * 6, 1_800_000, 1_800_000, 1_800_000))
    assert found.frequency_khz == (2_400_000, 1_800_000)


@pytest.mark.parametrize(
    ("state", "told"),
    [
        (DeviceState((CoreState(4, "", None, 1_000_000, 2_400_000),)), "cpu4 was held at 1.0 GHz before the run, it"),
        (DeviceState(zones=(ThermalZone("thermal_zone0", "cpu", 85_000),)), "the device was at 85 °C before the run"),
        (DeviceState(online=2, load=62.0), "load average 62.0 on 2 cores before the run: end other work"),
        (DeviceState(online=4, load=4.5), ""),
        (DeviceState((CoreState(4, "", None, 2_400_000, 2_400_000),)), ""),
    ],
)
def test_what_held_the_device_back_before_the_first_run_is_evidence(state: DeviceState, told: str) -> None:
    found = evidence_of([state, DeviceState()])
    assert (found.capped or found.burdened).startswith(told)
    assert bool(found.capped or found.burdened) == bool(told)


def test_a_cap_of_a_core_that_the_models_do_not_run_on_is_no_evidence() -> None:
    states = [DeviceState((CoreState(4, "", None, 1_000_000, 2_400_000),))]
    assert (evidence_of(states, (0, 1)).capped, evidence_of(states, (4,)).capped != "") == ("", True)


def test_a_device_that_shows_nothing_gives_no_evidence() -> None:
    assert evidence_of([DeviceState(), DeviceState()]) == Evidence()


def test_json_of_a_row_is_flat_and_has_the_reason() -> None:
    row = assess(blocks(still)).to_json()
    assert {"p50_ms", "ci95_ms", "verdict", "verdict_reason", "drift", "warmup_runs"} <= row.keys()
