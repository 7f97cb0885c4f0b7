"""What a model costs on an emulated CPU: instructions of one inference, never time."""

import statistics
from dataclasses import asdict, dataclass, replace

from mobilekd.benchmarking.running import Running
from mobilekd.device.runner import Job

_WARMUP_RUNS = 3
_COUNTED_RUNS = 3


@dataclass(frozen=True, slots=True)
class Counted:
    """Instructions of one inference, and what else the runner told.

    Attributes:
        total: Median over the runs.
        smallest, largest: Over the runs.
        runs: Counted runs.
        classes: Of the median run, by class.
        peak_memory_bytes: Growth of resident memory from before the load to its peak, as the guest sees it.
    """

    total: int
    smallest: int
    largest: int
    runs: int
    classes: dict[str, int]
    peak_memory_bytes: int

    def to_json(self) -> dict[str, object]:
        """Return the counts as plain JSON values."""
        return {name: value for name, value in asdict(self).items() if name != "peak_memory_bytes"}


def count(running: Running, job: Job) -> Counted:
    """Count the instructions of one inference, after warm-up, on one thread (more threads do not repeat)."""
    timed = replace(job, outputs=(), warmup_runs=_WARMUP_RUNS, timed_runs=_COUNTED_RUNS, threads=1)
    outcome, counts = running.count(timed)
    totals = [one.total for one in counts]
    middle = statistics.median_low(totals)
    chosen = next(one for one in counts if one.total == middle)
    classes = {name: value for name, value in asdict(chosen).items() if name != "total"}
    before, peak = outcome.memory_bytes
    return Counted(middle, min(totals), max(totals), len(totals), classes, max(0, peak - before))
