"""Time models on this host by Python, where no device runner knows their runtime; and what this host is to a target."""

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
    settings: BenchmarkSettings,
    scratch: Path,
    progress: Progress,
) -> dict[str, Any]:
    """Return rows and raw samples of models measured in turn on this host by Python, for backends without a C runner.

    Args:
        models: What to measure; all can run here.
        image: [1, channels, height, width], normalised.
        settings: Warm-up and timed runs, threads.
        scratch: A directory that exists.
        progress: Where to show progress.
    """
    timings: dict[str, list[Timing]] = {model.name: [] for model in models}
    runs = (settings.warmup_runs, -(-settings.timed_runs // _ROUNDS))
    with progress.bar("benchmark on this host", _ROUNDS * len(models)) as bar:
        for _ in range(_ROUNDS):
            for model in models:
                backend = str(model.facts.deployment["backend"])
                timings[model.name].append(
                    time_model(
                        backend, model.model, model.facts, image, threads=settings.threads, runs=runs, scratch=scratch
                    )
                )
                bar.advance(1, model.name)
    rows = [_row(model, timings[model.name], settings) for model in models]
    return {
        "rows": rows,
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
        "measured_by": "python",
    }


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
