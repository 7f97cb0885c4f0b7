from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilekd.device_state import DeviceState
from mobilekd.errors import DeviceError
from mobilekd.interleaving import QUICK, RELEASE, Block, LoopSettings, measure_interleaved


class Bench:
    """Models that take a fixed time of a clock of its own."""

    def __init__(self, **ms: float) -> None:
        self.ms, self.now_s = ms, 100.0
        self.calls: list[str] = []

    def time_block(self, model: str, runs: int) -> list[float]:
        self.calls.append(model)
        self.now_s += runs * self.ms[model] / 1e3
        return [self.ms[model]] * runs

    def clock(self) -> float:
        return self.now_s

    def read(self) -> DeviceState:
        self.calls.append("state")
        return DeviceState(load=self.now_s)

    def measure(self, settings: LoopSettings = QUICK):
        return measure_interleaved(list(self.ms), self.time_block, settings, read_state=self.read, clock=self.clock)


SMALL = LoopSettings(rounds=3, block_ms=0.0)


@given(st.integers(1, 5), st.integers(0, 1000))
def test_every_round_is_its_own_mirror_and_has_each_model_twice(count: int, seed: int) -> None:
    names = [f"m{index}" for index in range(count)]
    found = Bench(**dict.fromkeys(names, 1.0)).measure(replace(SMALL, seed=seed))
    for number, order in enumerate(found.order):
        assert [block.model for block in found.blocks if block.round == number] == [*order, *reversed(order)]
        assert sorted(order) == sorted(names)


def test_the_seed_gives_the_order() -> None:
    orders = [Bench(a=1.0, b=1.0).measure(replace(QUICK, seed=seed)).order for seed in (1, 1, 2)]
    assert orders[0] == orders[1] != orders[2]


def test_both_orders_of_two_models_are_drawn() -> None:
    assert set(Bench(a=1.0, b=1.0).measure().order) == {("a", "b"), ("b", "a")}


def test_blocks_last_as_long_as_asked_for() -> None:
    found = Bench(a=2.0, b=0.1).measure(replace(SMALL, block_ms=50.0))
    assert {(block.model, len(block.samples_ms)) for block in found.blocks} == {("a", 25), ("b", 500)}


@pytest.mark.parametrize("ms", [0.5, 20.0, 400.0])
def test_release_has_1024_queries_and_60_s_of_each_model(ms: float) -> None:
    found = Bench(a=ms, b=ms / 2).measure(RELEASE)
    for model in found.models:
        samples = [sample for block in found.blocks_ms(model) for sample in block]
        assert len(samples) >= 1024
        assert sum(samples) >= 59_999.999


def test_rounds_are_added_when_a_model_becomes_faster_after_its_warm_up() -> None:
    bench = Bench(a=10.0)
    settings = replace(SMALL, least_s=1.0)

    def time_block(model: str, runs: int) -> Sequence[float]:
        return [10.0 if len(bench.time_block(model, runs)) == 5 else 6.0] * runs

    found = measure_interleaved(["a"], time_block, settings, clock=bench.clock)
    assert len(found.order) == 5


def test_a_measurement_that_cannot_reach_its_time_ends_with_an_error() -> None:
    bench = Bench(a=10.0)
    settings = replace(SMALL, least_s=60.0)
    with pytest.raises(DeviceError, match="after 12 rounds"):
        measure_interleaved(["a"], lambda _, runs: [10.0 if runs == 5 else 0.001] * runs, settings, clock=bench.clock)


def test_the_device_is_read_before_the_warm_up_and_after_every_round_and_never_within_one() -> None:
    bench = Bench(a=1.0)
    bench.measure(SMALL)
    assert bench.calls == ["state", "a", "a", "a", "state", *(["a", "a", "state"] * 3)]


def test_blocks_carry_the_seconds_from_the_beginning() -> None:
    found = Bench(a=100.0).measure(SMALL)
    assert [block.started_s for block in found.blocks] == pytest.approx([1.5, 2.0, 2.5, 3.0, 3.5, 4.0])


def test_a_block_that_lost_a_run_is_an_error() -> None:
    with pytest.raises(DeviceError, match="a: 4 of 5 runs"):
        measure_interleaved(["a"], lambda _, runs: [20.0] * (4 if runs == 5 else runs), SMALL, clock=lambda: 0.0)


@pytest.mark.parametrize("models", [[], ["a", "a"]])
def test_models_must_have_names_that_differ(models: list[str]) -> None:
    with pytest.raises(DeviceError, match="names that differ"):
        measure_interleaved(models, lambda _, runs: [1.0] * runs, SMALL)


def test_each_block_is_told_when_it_ends() -> None:
    told: list[Block] = []
    found = measure_interleaved(["a"], lambda _, runs: [20.0] * runs, SMALL, watch=told.append, clock=lambda: 0.0)
    assert tuple(told) == found.blocks
