"""What each layer of a model costs: time on a device or host, instructions on an emulator."""

import json
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from mobilekd.benchmarking.layer_names import LayerNames
from mobilekd.benchmarking.running import Running
from mobilekd.device.runner import Job
from mobilekd.errors import DeviceError
from mobilekd.measurement import Measured
from mobilekd.transports.qemu import Qemu

_WARMUP_RUNS = 5
_TIMED_RUNS = 40
_COUNTED_RUNS = 3
_MATRIX_KERNELS = re.compile(r"(Depthwise |De)?[Cc]onvolution|Fully Connected|Batch Matrix|CONV|FULLY_|BATCH_MATMUL")
_FUSED = re.compile(r"_token_\d+$")


@dataclass(frozen=True, slots=True)
class LayerCost:
    """One operator as the runtime runs it; fused ones are one.

    Attributes:
        name: The trained network's, where the file keeps it; else the runtime's.
        operator: The runtime's word for its kind.
        share: Of the sum over all layers, in 0 to 1.
        ms: Mean of the middle half of the runs, less the profiler's own part; None on an emulator.
        instructions: Median of the runs, less the profiler's own part; None where time was taken.
    """

    name: str
    operator: str
    share: float
    ms: float | None = None
    instructions: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON values, with the one of the two costs that it has."""
        cost = {"ms": self.ms} if self.instructions is None else {"instructions": self.instructions}
        return {"name": self.name, "operator": self.operator, **cost, "share": self.share}


@dataclass(frozen=True, slots=True)
class Operation:
    """One operator in one run: what the runtime calls it, and its time or instructions."""

    name: str
    operator: str
    cost: float


def layers_of(running: Running, model: Measured, job: Job, names: LayerNames) -> tuple[list[LayerCost], str]:
    """Return what each layer of a model costs, the most expensive first; or nothing, and the reason.

    The runs are their own, with the runtime's profiler on: they give no latency.

    Args:
        running: The device.
        model: What is measured.
        job: As `Running.job` gives it.
        names: The trained network's.

    Raises:
        DeviceError: The runtime gave no profile, or one that is incomplete.
    """
    if running.measured_by == "python":
        return [], "the runner in Python does not divide runs into layers"
    emulated = running.transport.latency_kind == "guest_instructions"
    if emulated and not isinstance(running.transport, Qemu):
        return [], "this emulator does not count by layer, and its time is none"
    runs = _COUNTED_RUNS if emulated else _TIMED_RUNS
    job = replace(job, outputs=(), warmup_runs=_WARMUP_RUNS, timed_runs=runs)
    if emulated:
        job = replace(job, threads=1)
        plain: float = statistics.median(one.total for one in running.count(job)[1])
    else:
        plain = statistics.median(running.run(job).latencies_ms)
    trace = running.layers(job)
    recorded = read_ort_trace(trace, runs) if job.backend == "onnxruntime" else read_lines(trace, runs)
    if emulated:
        recorded = in_instructions(recorded)
    found = costs(named(recorded, model, names), plain, counted=emulated)
    return found, "" if found else "every layer takes less than the runtime's profiler can tell"


def in_instructions(recorded: Sequence[Sequence[Operation]]) -> list[list[Operation]]:
    """Return operators with the instructions that an emulator's clock showed as microseconds."""
    return [[replace(one, cost=round(1000 * one.cost)) for one in run] for run in recorded]


def read_lines(trace: str, runs: int) -> list[list[Operation]]:
    """Return the operators of each run, in ms, of mkdrun's own lines.

    Raises:
        DeviceError: The lines are not those of so many equal runs.
    """
    lines = [json.loads(line) for line in trace.splitlines()]
    each, rest = divmod(len(lines), runs)
    if rest or not each:
        raise DeviceError(
            f"a profile has {len(lines)} layers, which are not those of {runs} equal runs", code="MKD-507"
        )
    found = [Operation(one["name"], one["operator"].partition(" [")[0].strip(), one["ns"] / 1e6) for one in lines]
    return [found[at : at + each] for at in range(0, len(found), each)]


def read_ort_trace(trace: str, runs: int) -> list[list[Operation]]:
    """Return the operators of each of the last `runs` runs, in ms, of ONNX Runtime's trace.

    The trace is in the order in which things ended: a run follows its operators. Their times do not tell which run they
    are of where the clock is coarse, as a browser's is: an operator may begin at the very reading at which a run ends.

    Raises:
        DeviceError: It has fewer runs.
    """
    found: list[list[Operation]] = [[]]
    for event in json.loads(trace):
        if event["name"] == "model_run":
            found.append([])
        elif event["cat"] == "Node" and event["name"].endswith("_kernel_time"):
            found[-1].append(_operation(event))
    ended = found[:-1]
    if len(ended) < runs:
        raise DeviceError(f"ONNX Runtime's profile has {len(ended)} of {runs} runs", code="MKD-507")
    return ended[-runs:]


def _operation(node: dict[str, Any]) -> Operation:
    name = _FUSED.sub("", node["name"].removesuffix("_kernel_time"))
    return Operation(name, node["args"]["op_name"], node["dur"] / 1e3)


def named(recorded: Sequence[Sequence[Operation]], model: Measured, names: LayerNames) -> list[list[Operation]]:
    """Return the operators with the trained network's names, where the files keep them.

    XNNPACK names kernels and no layers, but runs them in the file's order: where the file has as many matrix operators
    as were run, those are they.
    """
    layers = names.in_order.get(model.model)
    return [
        [replace(one, name=names.by_node.get(one.name, one.name)) for one in run]
        if layers is None
        else _by_order(run, layers)
        for run in recorded
    ]


def _by_order(run: Sequence[Operation], layers: Sequence[str]) -> list[Operation]:
    matrix = [at for at, one in enumerate(run) if _MATRIX_KERNELS.match(one.operator)]
    known = dict(zip(matrix, layers, strict=True)) if len(matrix) == len(layers) else {}
    return [replace(one, name=known.get(at, f"operator {at}")) for at, one in enumerate(run)]


def costs(recorded: Sequence[Sequence[Operation]], within: float, *, counted: bool = False) -> list[LayerCost]:
    """Return the cost of each operator over all runs, the highest first; nothing where all of them cost nothing.

    Args:
        recorded: Of each run the same operators in the same order.
        within: Cost of a run without the profiler, which the layers must fit into (see `without_profiler`).
        counted: Whether costs are instructions.

    Raises:
        DeviceError: The runs differ in their operators.
    """
    _check_equal(recorded)
    first = recorded[0]
    middles = [_middle([run[at].cost for run in recorded], counted=counted) for at in range(len(first))]
    middles = without_profiler(middles, within)
    total = sum(middles)
    if not total:
        return []
    found = [
        LayerCost(
            one.name, one.operator, middle / total, None if counted else middle, round(middle) if counted else None
        )
        for one, middle in zip(first, middles, strict=True)
    ]
    return sorted(found, key=lambda one: -one.share)


def _check_equal(recorded: Sequence[Sequence[Operation]]) -> None:
    first, *others = [[f"{one.operator} {one.name}" for one in run] for run in recorded]
    for number, run in enumerate(others, start=2):
        if run == first:
            continue
        at = next((at for at, pair in enumerate(zip(first, run, strict=False)) if len(set(pair)) > 1), None)
        told = f"{len(first)} and {len(run)} of them" if at is None else f"{first[at]!r} and {run[at]!r} at place {at}"
        raise DeviceError(
            f"the operators of a model differ from run to run: run 1 and run {number} have {told}",
            hint="profile models of a fixed shape",
            code="MKD-507",
        )


def without_profiler(layers: Sequence[float], run: float) -> list[float]:
    """Return the costs of layers less what the profiler took in each, the same in all, so that they fit into a run.

    ONNX Runtime's takes 3 microseconds in every operator on a fast core, which is more than most of a small network's
    operators take themselves: left in, it would make all of them look alike. Costs that fit already stay as they are.

    Example:
        >>> without_profiler([5.0, 3.0, 1.0], 4.0)
        [3.0, 1.0, 0.0]
    """
    if sum(layers) <= run:
        return list(layers)
    ordered = sorted(layers, reverse=True)
    part, kept = 0.0, 0.0
    for number, value in enumerate(ordered, start=1):
        kept += value
        part = (kept - run) / number
        if number == len(ordered) or ordered[number] <= part:
            break
    return [max(0.0, value - part) for value in layers]


def _middle(values: Sequence[float], *, counted: bool) -> float:
    """Return the median of counts, and of times the mean of their middle half.

    Profilers give whole microseconds, so the median of a short layer would be one, too; the mean of all is drawn by the
    one run in which the system did something else.
    """
    if counted:
        return statistics.median_low(values)
    ordered, quarter = sorted(values), len(values) // 4
    return statistics.fmean(ordered[quarter : len(ordered) - quarter])
