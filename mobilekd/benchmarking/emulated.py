"""What a model costs on an emulated CPU: instructions of one inference, never time."""

import statistics
from dataclasses import asdict, dataclass, replace
from typing import Literal

from mobilekd.benchmarking.running import Running
from mobilekd.device.runner import Job, Outcome
from mobilekd.transports.vm import Vm

_WARMUP_RUNS = 3
_PLUGIN_RUNS = 3
_CLOCK_RUNS = 20
_OF_THE_ROW = ("peak_memory_bytes", "runtime_version")


@dataclass(frozen=True, slots=True)
class Counted:
    """Instructions of one inference, and what else the runner told.

    Attributes:
        counted_by: "plug-in" of qemu-user: the program's instructions. "icount", the clock of a virtual machine: the
            kernel's are among them, in steps of 16.
        total: Of the plug-in the median over the runs, of the clock the lower quartile.
        smallest, largest: Over the runs.
        runs: Counted runs.
        classes: Of the median run, by class; empty with the clock, which tells none apart.
        peak_memory_bytes: Growth of resident memory from before the load to its peak; None under qemu-user, where it
            would be that of qemu itself.
        runtime_version: As the runtime tells it; empty where it does not.
    """

    counted_by: Literal["plug-in", "icount"]
    total: int
    smallest: int
    largest: int
    runs: int
    classes: dict[str, int]
    peak_memory_bytes: int | None
    runtime_version: str

    def to_json(self) -> dict[str, object]:
        """Return the counts as plain JSON values."""
        return {name: value for name, value in asdict(self).items() if name not in _OF_THE_ROW}

    def to_row(self) -> dict[str, object]:
        """Return what latency.json says of the cost of one model."""
        return {
            "latency_kind": "guest_instructions",
            "guest_instructions": self.to_json(),
            **{name: getattr(self, name) for name in _OF_THE_ROW},
            "threads": 1,
        }


def count(running: Running, job: Job) -> Counted:
    """Count the instructions of one inference, after warm-up, on one thread (more threads do not repeat).

    Raises:
        DeviceError: The place is no emulator, or counted fewer runs than there were.
    """
    alone = replace(job, outputs=(), warmup_runs=_WARMUP_RUNS, threads=1, cores=())
    if isinstance(running.transport, Vm):
        return _by_clock(running, replace(alone, timed_runs=_CLOCK_RUNS))
    return _by_plugin(running, replace(alone, timed_runs=_PLUGIN_RUNS))


def _by_plugin(running: Running, job: Job) -> Counted:
    outcome, counts = running.count(job)
    totals = [one.total for one in counts]
    middle = statistics.median_low(totals)
    chosen = next(one for one in counts if one.total == middle)
    classes = {name: value for name, value in asdict(chosen).items() if name != "total"}
    return Counted("plug-in", middle, min(totals), max(totals), len(totals), classes, None, outcome.runtime_version)


def _by_clock(running: Running, job: Job) -> Counted:
    outcome, counts = running.count_by_clock(job)
    ordered = sorted(counts)
    # A tick of the kernel's timer adds 3,300 instructions to one run in X / 4 million, so the median of a model of
    # X > 2 million has one. Nor the least: one run that is out of line must not stand for all.
    usual = ordered[(len(ordered) - 1) // 4]
    spread = (ordered[0], ordered[-1], len(ordered))
    return Counted("icount", usual, *spread, {}, _growth(outcome), outcome.runtime_version)


def _growth(outcome: Outcome) -> int | None:
    return None if outcome.memory_bytes is None else max(0, outcome.memory_bytes[1] - outcome.memory_bytes[0])
