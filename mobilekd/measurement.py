"""Time deployed models in turn on this host, and say what the host is to their target."""

import datetime
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobilekd.latency import summarize
from mobilekd.profile import BenchmarkSettings, Target
from mobilekd.stage import Progress
from mobilekd.worker import time_model

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mobilekd.backend import DeployedFacts
    from mobilekd.worker import Timing

_ROUNDS = 2
"""Each model is measured this often, in turn with the others: slow drift of the machine then hits all of them."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One model to measure."""

    name: str
    model: Path
    facts: "DeployedFacts"


def measure(
    models: Sequence[Measured],
    image: "NDArray[np.float32]",
    *,
    target: Target,
    settings: BenchmarkSettings,
    scratch: Path,
    progress: Progress,
) -> dict[str, Any]:
    """Return latency.json: rows and raw samples of the models that can run here, measured in turn.

    Args:
        models: What to measure; those that can't run here get no row.
        image: [1, channels, height, width], normalised.
        target: What the models are for; decides whether this host is the target.
        settings: Warm-up and timed runs, threads.
        scratch: A directory that exists.
        progress: Where to show progress.
    """
    runnable = [model for model in models if model.facts.runnable]
    timings: dict[str, list[Timing]] = {model.name: [] for model in runnable}
    runs = (settings.warmup_runs, -(-settings.timed_runs // _ROUNDS))
    with progress.bar("benchmark on this host", _ROUNDS * len(runnable)) as bar:
        for _ in range(_ROUNDS):
            for model in runnable:
                backend = str(model.facts.deployment["backend"])
                timings[model.name].append(
                    time_model(
                        backend, model.model, model.facts, image, threads=settings.threads, runs=runs, scratch=scratch
                    )
                )
                bar.advance(1, model.name)
    rows = [_row(model, timings[model.name], settings) for model in runnable]
    on_target = is_target(target)
    where = f"host ({platform.machine()})" + ("" if on_target else ", not the target")
    return {
        "host": host_name(),
        "ran_on": where,
        "on_target": on_target,
        "measured": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "rows": [{**row, "ran_on": where, "on_target": on_target} for row in _with_speedup(rows)],
        "samples_ms": {name: [list(one.samples_ms) for one in rounds] for name, rounds in timings.items()},
    }


def _row(model: Measured, timings: "Sequence[Timing]", settings: BenchmarkSettings) -> dict[str, Any]:
    samples = [sample for timing in timings for sample in timing.samples_ms]
    peaks = [timing.peak_memory_bytes for timing in timings if timing.peak_memory_bytes is not None]
    return {
        "deployment": model.name,
        "backend": model.facts.deployment["backend"],
        "precision": model.facts.deployment["precision"],
        "ships": model.facts.deployment["ships"],
        "latency_kind": "wall",
        **asdict(summarize(samples)),
        "warmup_runs": settings.warmup_runs,
        "threads": settings.threads,
        "load_ms": min(timing.load_ms for timing in timings),
        "peak_memory_bytes": max(peaks) if peaks else None,
        "int8_speedup": None,
    }


def _with_speedup(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows with p50(fp32) / p50(int8) on every int8 row whose backend has an fp32 row."""
    floats = {row["backend"]: row["p50_ms"] for row in rows if row["precision"] == "fp32"}
    return [
        {**row, "int8_speedup": floats[row["backend"]] / row["p50_ms"]}
        if row["precision"] == "int8" and row["backend"] in floats
        else row
        for row in rows
    ]


def is_target(target: Target) -> bool:
    """Return whether this host is what the models are for: a target that names a chip is never taken for this host."""
    if target.chip or target.compute_capability:
        return False
    machine = {"x86_64": "x86_64", "AMD64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}
    return target.os == platform.system().lower() and target.abi == machine.get(platform.machine())


def host_name() -> str:
    """Return this host's processor, as "AMD EPYC (x86_64)"."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return f"{name or platform.processor() or 'unknown processor'} ({platform.machine()})"
