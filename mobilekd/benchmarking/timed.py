"""What models cost on real silicon: interleaved blocks of timed runs, each judged for its steadiness."""

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mobilekd.benchmarking.running import Running
from mobilekd.device.runner import Job, Outcome
from mobilekd.device_state import STATE_SCRIPT, DeviceState, parse_state, worries
from mobilekd.interleaving import QUICK, RELEASE, LoopSettings, Measurement, measure_interleaved
from mobilekd.profile import BenchmarkSettings
from mobilekd.stage import Progress
from mobilekd.steadiness import Assessment, assess, evidence_of

_COLD_RUNS = 3
"""Runs at the start of each block that are not timed: a block starts a process of its own."""


@dataclass(frozen=True, slots=True)
class Timed:
    """Models timed in turn with each other.

    Attributes:
        measurement: Every block.
        assessments: By model.
        load_ms: By model, the fastest load of all blocks.
        peak_memory_bytes: By model, the largest growth of resident memory of all blocks; None where it is not told.
        runtime_versions: By model, as its runtime tells it; empty where it does not.
        worries: What the device showed that can bend its times.
    """

    measurement: Measurement
    assessments: Mapping[str, Assessment]
    load_ms: Mapping[str, float]
    peak_memory_bytes: Mapping[str, int | None]
    runtime_versions: Mapping[str, str]
    worries: tuple[str, ...]


def time_models(running: Running, jobs: Mapping[str, Job], settings: BenchmarkSettings, progress: Progress) -> Timed:
    """Time models in interleaved blocks until each has what the profile's mode asks for.

    Args:
        running: The device.
        jobs: By name of the model.
        settings: Mode and least number of timed runs.
        progress: Where to show it.
    """
    outcomes: dict[str, list[Outcome]] = {name: [] for name in jobs}

    def time_block(name: str, runs: int) -> Sequence[float]:
        job = dataclasses.replace(jobs[name], warmup_runs=_COLD_RUNS, timed_runs=runs, outputs=())
        outcomes[name].append(running.run(job))
        return outcomes[name][-1].latencies_ms

    loop = loop_settings(settings)
    with progress.bar("benchmark", 2 * loop.rounds * len(jobs)) as bar:
        measurement = measure_interleaved(
            list(jobs),
            time_block,
            loop,
            read_state=lambda: read_state(running),
            watch=lambda block: bar.advance(1, block.model),
        )
    evidence = evidence_of(measurement.states, settings.cores)
    return Timed(
        measurement=measurement,
        assessments={
            name: assess(measurement.blocks_ms(name), warmup=measurement.warmup_of(name), evidence=evidence)
            for name in jobs
        },
        load_ms={name: min(one.load_ms for one in found) for name, found in outcomes.items()},
        peak_memory_bytes={name: _largest_growth(found) for name, found in outcomes.items()},
        runtime_versions={name: found[-1].runtime_version for name, found in outcomes.items()},
        worries=(*worries(measurement.states[0], measurement.states[-1]), *_coarse(outcomes)),
    )


def timed_row(timed: Timed, name: str, threads: int) -> dict[str, Any]:
    """Return what latency.json says of the times of one model."""
    return {
        "latency_kind": "wall",
        **timed.assessments[name].to_json(),
        "threads": threads,
        "load_ms": timed.load_ms[name],
        "peak_memory_bytes": timed.peak_memory_bytes[name],
        "runtime_version": timed.runtime_versions[name],
    }


def told_state(state: DeviceState) -> dict[str, Any]:
    """Return what latency.json keeps of a reading; null where the device does not show it."""
    return {
        "governors": sorted({core.governor for core in state.cores} - {""}),
        "fastest_khz": state.fastest_khz,
        "hottest_celsius": state.hottest_celsius,
        "load": state.load,
        "online": state.online,
    }


def loop_settings(settings: BenchmarkSettings) -> LoopSettings:
    """Return how blocks are taken: a profile's timed runs and warm-up are the least of them."""
    base = RELEASE if settings.mode == "release" else QUICK
    window_runs = max(base.warmup.window_runs, math.ceil(settings.warmup_runs / base.warmup.windows))
    return dataclasses.replace(
        base,
        least_runs=max(base.least_runs, settings.timed_runs),
        warmup=dataclasses.replace(base.warmup, window_runs=window_runs),
    )


def _largest_growth(outcomes: Sequence[Outcome]) -> int | None:
    growths = [max(0, one.memory_bytes[1] - one.memory_bytes[0]) for one in outcomes if one.memory_bytes]
    return max(growths, default=None)


def _coarse(outcomes: Mapping[str, Sequence[Outcome]]) -> Iterator[str]:
    """Yield a sentence for each model that is too fast for the clock to time one inference."""
    for name, found in outcomes.items():
        if (most := max(one.inferences for one in found)) > 1:
            step_us = max(one.clock_ms for one in found) * 1e3
            yield (
                f"{name}: up to {most} inferences in a row are timed as one, since the clock moves in steps of "
                f"{step_us:.0f} µs: all percentiles are of their means"
            )


def read_state(running: Running) -> DeviceState:
    """Return governor, frequencies, temperatures and load, as far as the device shows them."""
    return parse_state(running.transport.run(["sh", "-c", STATE_SCRIPT], timeout_s=30).stdout)
