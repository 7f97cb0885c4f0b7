"""What a new release costs on the device: bytes, instructions or time, memory, and the operators that run."""

from collections import Counter
from dataclasses import dataclass

from mobilekd.release.evidence import Instructions, Latency, LatencyRow
from mobilekd.release.manifest import Manifest


@dataclass(frozen=True, slots=True)
class CostChange:
    """One deployment in both releases; None is what was not measured.

    Attributes:
        kind: "guest instructions", "p50 ms", or "" where nothing was measured alike in both.
        old, new: The cost in both.
        verdict: "cheaper", "dearer", "no difference", or "not compared".
        reason: What the verdict rests on, or why there is none.
    """

    deployment: str
    old_bytes: int
    new_bytes: int
    kind: str
    old: float | None
    new: float | None
    verdict: str
    reason: str


@dataclass(frozen=True, slots=True)
class OperatorChange:
    """How many layers of one operator a deployment runs, as its runtime names them."""

    deployment: str
    operator: str
    old: int
    new: int


def cost_changes(manifests: tuple[Manifest, Manifest], latencies: tuple[Latency, Latency]) -> tuple[CostChange, ...]:
    """Return the cost of every deployment that both releases ship."""
    models = [_sized(manifest) for manifest in manifests]
    rows = [{row.deployment: row for row in latency.rows} for latency in latencies]
    return tuple(
        CostChange(name, models[0][name], models[1][name], *_judged(rows[0].get(name), rows[1].get(name), latencies))
        for name in models[0]
        if name in models[1]
    )


def _sized(manifest: Manifest) -> dict[str, int]:
    """Return the bytes of every model's file, by deployment."""
    sizes = {one.path: one.bytes for one in manifest.files}
    return {one.deployment: sizes[one.file] for one in manifest.models}


def _judged(
    old: LatencyRow | None, new: LatencyRow | None, latencies: tuple[Latency, Latency]
) -> tuple[str, float | None, float | None, str, str]:
    """Return kind, both costs, verdict and reason."""
    if old is None or new is None:
        return "", None, None, "not compared", "not measured in both"
    if old.guest_instructions and new.guest_instructions:
        verdict, reason = _by_instructions(old.guest_instructions, new.guest_instructions, latencies)
        return "guest instructions", old.guest_instructions.total, new.guest_instructions.total, verdict, reason
    if old.p50_ms is not None and new.p50_ms is not None:
        return "p50 ms", old.p50_ms, new.p50_ms, *_by_time(old, new, latencies)
    kinds = [one.latency_kind or "nothing" for one in (old, new)]
    return "", None, None, "not compared", f"OLD measured {kinds[0]}, NEW {kinds[1]}"


def _by_instructions(old: Instructions, new: Instructions, latencies: tuple[Latency, Latency]) -> tuple[str, str]:
    """Return a verdict on counts: they repeat, so what lies outside both spreads is a difference."""
    if latencies[0].ran_on != latencies[1].ran_on:
        return "not compared", f"counted on {latencies[0].ran_on} and on {latencies[1].ran_on}"
    verdict = _verdict((old.smallest, old.largest), (new.smallest, new.largest))
    return verdict, f"smallest to largest of {old.runs} and {new.runs} runs"


def _by_time(old: LatencyRow, new: LatencyRow, latencies: tuple[Latency, Latency]) -> tuple[str, str]:
    """Return a verdict on times of two runs: a difference where the 95 % intervals of the medians lie apart."""
    places = [(one.ran_on, one.host) for one in latencies]
    if places[0] != places[1]:
        return "not compared", f"measured on {' of '.join(places[0])} and on {' of '.join(places[1])}"
    if old.ci95_ms is None or new.ci95_ms is None:
        return "not compared", "no interval of the median"
    if "noisy" in (old.verdict, new.verdict) or "throttled" in (old.verdict, new.verdict):
        return "not compared", "one of the two measurements is not trusted"
    return _verdict(old.ci95_ms, new.ci95_ms), "95 % intervals of the medians of two runs; bench OLD NEW is sharper"


def _verdict(old: tuple[float, float], new: tuple[float, float]) -> str:
    if new[0] > old[1]:
        return "dearer"
    return "cheaper" if new[1] < old[0] else "no difference"


def operator_changes(latencies: tuple[Latency, Latency]) -> tuple[OperatorChange, ...]:
    """Return the operators of which a deployment runs more or fewer layers; runtimes that name none are left out."""
    counted = [
        {row.deployment: Counter(layer.operator for layer in row.layers) for row in latency.rows if row.layers}
        for latency in latencies
    ]
    return tuple(
        OperatorChange(name, operator, counted[0][name][operator], counted[1][name][operator])
        for name in counted[0]
        if name in counted[1]
        for operator in sorted(counted[0][name] | counted[1][name])
        if counted[0][name][operator] != counted[1][name][operator]
    )
