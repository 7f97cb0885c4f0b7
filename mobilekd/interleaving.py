"""Time several models in interleaved blocks, whatever runs them.

A round is mirrored: the models in an order drawn at random, then the same order backwards (A B B A, or B A A B). The
mirror takes a drift that is linear within the round out of every comparison; the random order makes the names of the
models exchangeable, on which `comparison` rests. Source: Box, Hunter & Hunter 2005, chapter 4 (blocks, randomisation).
"""

import functools
import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from mobilekd.device_state import DeviceState
from mobilekd.errors import DeviceError
from mobilekd.warmup import Warmup, WarmupRule, warm_up

Mode = Literal["quick", "release"]
TimeBlock = Callable[[str, int], Sequence[float]]
"""Runs a model so many times and returns the wall time of each run in milliseconds."""

BLOCKS_PER_ROUND = 2
_MOST_TIMES_THE_ROUNDS = 4


@dataclass(frozen=True, slots=True)
class LoopSettings:
    """How the models of one measurement are timed.

    Attributes:
        mode: Name of the rule, for the record.
        rounds: Least number of rounds.
        block_runs: Least runs of a block.
        block_ms: A block has as many runs as last this long.
        least_runs, least_s: Timed runs and seconds that each model must have in all.
        warmup: When a model is warm.
        seed: Of the order.
    """

    mode: Mode = "quick"
    rounds: int = 15
    block_runs: int = 5
    block_ms: float = 50.0
    least_runs: int = 0
    least_s: float = 0.0
    warmup: WarmupRule = field(default_factory=WarmupRule)
    seed: int = 0


QUICK = LoopSettings()
"""1.5 s a model, and warm-up."""

RELEASE = LoopSettings(
    mode="release", rounds=30, least_runs=1024, least_s=60.0, warmup=WarmupRule(max_windows=200, max_s=60.0)
)
"""The rule of MLPerf Mobile's single stream: at least 1,024 queries and 60 s a model (https://arxiv.org/abs/2012.02328)."""


@dataclass(frozen=True, slots=True)
class Block:
    """Consecutive timed runs of one model.

    Attributes:
        model: Its name.
        round: From 0.
        started_s: Seconds from the beginning of the measurement.
        samples_ms: Wall time of each run.
    """

    model: str
    round: int
    started_s: float
    samples_ms: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Measurement:
    """Everything that one measurement saw.

    Attributes:
        settings: As given.
        models: Names, in the order given.
        warmups: One for each model.
        order: Order of the models in each round, before its mirror.
        blocks: In time order.
        states: Readings of the device before the warm-up, before the first round and after each round.
    """

    settings: LoopSettings
    models: tuple[str, ...]
    warmups: tuple[Warmup, ...]
    order: tuple[tuple[str, ...], ...]
    blocks: tuple[Block, ...]
    states: tuple[DeviceState, ...]

    def blocks_ms(self, model: str) -> tuple[tuple[float, ...], ...]:
        """Return the samples of one model's blocks in time order, BLOCKS_PER_ROUND from each round."""
        return tuple(block.samples_ms for block in self.blocks if block.model == model)

    def warmup_of(self, model: str) -> Warmup:
        """Return a model's warm-up."""
        return self.warmups[self.models.index(model)]


def measure_interleaved(
    models: Sequence[str],
    time_block: TimeBlock,
    settings: LoopSettings = QUICK,
    *,
    read_state: Callable[[], DeviceState] | None = None,
    watch: Callable[[Block], None] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Measurement:
    """Warm each model up, then time all of them in mirrored rounds.

    All models get the same number of rounds: those of the settings, and more until each has its least runs and seconds.

    Args:
        models: Names, each once.
        time_block: Where a block starts a process or opens a session of its own, its cold runs are not among the times.
        settings: How.
        read_state: Reads the device; called outside of the blocks.
        watch: Told of each block that ended.
        clock: Returns seconds.

    Raises:
        DeviceError: No model, a name twice, a block that did not give a positive time for each run, or the least
            seconds were not reached in four times the rounds.
    """
    if not models or len(set(models)) != len(models):
        raise DeviceError(f"models to time must have names that differ: {', '.join(models) or 'there is none'}")
    loop = _Loop(time_block, clock, clock(), watch)
    states = [read_state()] if read_state else []
    warmups = [warm_up(functools.partial(time_block, name), settings.warmup, clock=clock) for name in models]
    runs = {name: _block_runs(warmup, settings) for name, warmup in zip(models, warmups, strict=True)}
    states += [read_state()] if read_state else []
    rng = random.Random(settings.seed)
    order: list[tuple[str, ...]] = []
    while len(order) < settings.rounds or not loop.has_enough(models, settings):
        if len(order) >= _MOST_TIMES_THE_ROUNDS * settings.rounds:
            raise DeviceError(
                _too_short(settings, len(order)),
                hint="the model became faster while it was timed: hold the frequency, end other work, measure again",
                code="MKD-508",
            )
        order.append(tuple(rng.sample(models, len(models))))
        for name in (*order[-1], *reversed(order[-1])):
            loop.add(name, len(order) - 1, runs[name])
        states += [read_state()] if read_state else []
    return Measurement(settings, tuple(models), tuple(warmups), tuple(order), tuple(loop.blocks), tuple(states))


@dataclass(slots=True)
class _Loop:
    time_block: TimeBlock
    clock: Callable[[], float]
    began_s: float
    watch: Callable[[Block], None] | None
    blocks: list[Block] = field(default_factory=list)

    def add(self, model: str, number: int, runs: int) -> None:
        started_s = self.clock() - self.began_s
        samples = tuple(float(sample) for sample in self.time_block(model, runs))
        if len(samples) != runs or not all(0 < sample < math.inf for sample in samples):
            raise DeviceError(
                f"{model}: {len(samples)} of {runs} runs gave a time, or one was no positive number of milliseconds",
                hint="a clock that is too coarse shows 0: time several inferences as one run",
                code="MKD-508",
            )
        self.blocks.append(Block(model, number, started_s, samples))
        if self.watch:
            self.watch(self.blocks[-1])

    def has_enough(self, models: Sequence[str], settings: LoopSettings) -> bool:
        timed = {name: [block.samples_ms for block in self.blocks if block.model == name] for name in models}
        return all(
            sum(map(len, blocks)) >= settings.least_runs and sum(map(sum, blocks)) >= settings.least_s * 1e3
            for blocks in timed.values()
        )


def _block_runs(warmup: Warmup, settings: LoopSettings) -> int:
    """Return the runs of each block, so that the least runs and seconds are reached in the rounds of the settings."""
    blocks, median_ms = settings.rounds * BLOCKS_PER_ROUND, warmup.medians_ms[-1]
    block_ms = max(settings.block_ms, settings.least_s * 1e3 / blocks)
    by_time = math.ceil(block_ms / median_ms) if median_ms > 0 else 0
    return max(settings.block_runs, math.ceil(settings.least_runs / blocks), by_time)


def _too_short(settings: LoopSettings, rounds: int) -> str:
    return f"after {rounds} rounds a model still has fewer than {settings.least_runs} runs or {settings.least_s:g} s"
