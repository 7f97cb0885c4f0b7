"""Can a latency be trusted? Drift, throttling and noise of one model's timed blocks, as one verdict with its reason."""

import math
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from mobilekd.device_state import DeviceState, capped, hot, overloaded
from mobilekd.errors import DeviceError
from mobilekd.latency import LatencySummary, percentile_ms, summarize_blocks
from mobilekd.warmup import Warmup

Trust = Literal["trusted", "noisy", "throttled"]


@dataclass(frozen=True, slots=True)
class Drift:
    """How block medians moved from the beginning to the end.

    Attributes:
        change: Median of the last third of the blocks over that of the first third, minus 1. Thirds, not a fitted
            line: a step of the frequency in the middle then counts in full.
        p_value: Of the two-sided Mann-Kendall test of a trend (Mann 1945; Kendall 1975), with its correction for ties,
            which quantised clocks make.
    """

    change: float
    p_value: float


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a device showed while it was measured; None where it showed nothing.

    Attributes:
        frequency_khz: Highest frequency of its fastest core in any reading, and the median of the last third of them.
        celsius: Of its hottest sensor, in the first and the last reading.
        capped: Before the first run a core was held below what it can do: a sentence; empty where none was.
        burdened: Before the first run it was hot, or had more work than cores: a sentence; empty where neither was.
    """

    frequency_khz: tuple[int, int] | None = None
    celsius: tuple[float, float] | None = None
    capped: str = ""
    burdened: str = ""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a trusted measurement must keep.

    Attributes:
        interval_width: Largest width of the 95 % interval of the median, as a fraction of the median.
        drift: Largest change between the first and the last third of the blocks, as a fraction.
        p_value: A larger change is a slow-down, and not noise, when the test of a trend gives at most this.
        blocks: Least number of blocks.
        frequency_drop: A fall by this fraction is evidence of throttling.
        rise_celsius: So is a rise by this.
    """

    interval_width: float = 0.03
    drift: float = 0.05
    p_value: float = 0.01
    blocks: int = 8
    frequency_drop: float = 0.05
    rise_celsius: float = 5.0


NOTHING_SHOWN = Evidence()
STANDARD = Limits()


@dataclass(frozen=True, slots=True)
class Assessment:
    """A model's latency and whether it can be trusted: what a row of `mobilekd bench` shows.

    Attributes:
        summary: Percentiles; the interval has blocks as its unit.
        verdict: "throttled" where the device slowed down or was held back from the start, "noisy" where the median is
            not sharp or moved, or the device was hot or had other work.
        reason: One sentence with the numbers.
        drift: None with fewer than three blocks.
        warmup: None where nothing is known of it.
    """

    summary: LatencySummary
    verdict: Trust
    reason: str
    drift: Drift | None
    warmup: Warmup | None

    def to_json(self) -> dict[str, object]:
        """Return the percentiles, warm-up runs, drift, verdict and its reason as one flat object."""
        return {
            **asdict(self.summary),
            "ci95_ms": list(self.summary.ci95_ms),
            "warmup_runs": self.warmup.runs if self.warmup else None,
            "drift": self.drift.change if self.drift else None,
            "verdict": self.verdict,
            "verdict_reason": self.reason,
        }


def drift_of(medians_ms: Sequence[float]) -> Drift:
    """Return how block medians moved.

    Args:
        medians_ms: In time order; at least three, each above 0.

    Raises:
        DeviceError: There are too few, or one is not above 0 ms.

    Example:
        >>> round(drift_of([1.0, 1.0, 1.1, 1.1, 1.2, 1.2]).change, 3)
        0.2
    """
    if len(medians_ms) < 3 or min(medians_ms) <= 0:
        raise DeviceError(
            f"no drift can be told from {len(medians_ms)} block medians", hint="measure more blocks", code="MKD-508"
        )
    third = max(1, len(medians_ms) // 3)
    change = statistics.median(medians_ms[-third:]) / statistics.median(medians_ms[:third]) - 1
    return Drift(change, _mann_kendall(medians_ms))


def evidence_of(states: Sequence[DeviceState], cores: Sequence[int] = ()) -> Evidence:
    """Return the evidence of throttling in readings in time order.

    The highest frequency of all readings, not the first: before the first run the device may have been at rest. The
    median of the last third, not the last: after the last block it is at rest again.

    Args:
        states: Readings.
        cores: Those that the models are pinned to; empty means any.
    """
    speeds = [state.fastest_khz for state in states if state.fastest_khz is not None]
    heats = [state.hottest_celsius for state in states if state.hottest_celsius is not None]
    return Evidence(
        (max(speeds), statistics.median_low(speeds[-max(1, len(speeds) // 3) :])) if len(speeds) > 1 else None,
        (heats[0], heats[-1]) if len(heats) > 1 else None,
        capped=capped(states[0], cores) if states else "",
        burdened=hot(states[0]) or overloaded(states[0]) if states else "",
    )


def assess(
    blocks_ms: Sequence[Sequence[float]],
    *,
    warmup: Warmup | None = None,
    evidence: Evidence = NOTHING_SHOWN,
    limits: Limits = STANDARD,
) -> Assessment:
    """Return the percentiles of one model's timed blocks, and whether they can be trusted.

    A monotone slow-down is called throttling when frequency or temperature say so, and by time alone where the device
    shows neither; where it shows that nothing changed, the slow-down is noise of another origin.

    Args:
        blocks_ms: Wall times of each block in milliseconds, in time order.
        warmup: What came before.
        evidence: What the device showed.
        limits: What is still trusted.

    Raises:
        DeviceError: There is no block, one is empty, or a block median is not above 0 ms.
    """
    summary = summarize_blocks(blocks_ms)
    medians = [percentile_ms(block, 50) for block in blocks_ms]
    if min(medians) <= 0:
        raise DeviceError("the median of a block is 0 ms", hint="time several inferences as one run", code="MKD-508")
    drift = drift_of(medians) if len(medians) >= 3 else None
    doubts: list[str] = []
    if drift and abs(drift.change) > limits.drift:
        cause = _throttling(drift, evidence, limits)
        if cause:
            reason = f"throttled: block medians rose by {drift.change:.0%} {cause}"
            return Assessment(summary, "throttled", reason, drift, warmup)
        doubts.append(_moved(drift, limits))
    if evidence.capped:
        return Assessment(summary, "throttled", f"throttled: {evidence.capped}", drift, warmup)
    if evidence.burdened:
        doubts.append(evidence.burdened)
    if len(medians) < limits.blocks:
        doubts.append(f"{len(medians)} blocks tell too little of the machine, at least {limits.blocks} are needed")
    if summary.relative_width > limits.interval_width:
        width = f"the 95 % interval of the median is {summary.relative_width:.1%} wide"
        doubts.append(f"{width}, allowed {limits.interval_width:.0%}")
    if warmup and not warmup.has_settled:
        doubts.append(warmup.reason)
    if doubts:
        return Assessment(summary, "noisy", f"noisy: {doubts[0]}", drift, warmup)
    return Assessment(summary, "trusted", _trusted(summary, drift), drift, warmup)


def _throttling(drift: Drift, evidence: Evidence, limits: Limits) -> str:
    """Return what says that the slow-down is throttling; empty where nothing does."""
    if drift.change <= 0 or drift.p_value > limits.p_value:
        return ""
    speeds, heats = evidence.frequency_khz, evidence.celsius
    if speeds and speeds[1] < speeds[0] * (1 - limits.frequency_drop):
        return f"while the frequency fell from {speeds[0] / 1e6:.1f} to {speeds[1] / 1e6:.1f} GHz"
    if heats and heats[1] - heats[0] >= limits.rise_celsius:
        return f"while the temperature rose from {heats[0]:.0f} to {heats[1]:.0f} °C"
    if speeds is None and heats is None:
        return "from the first to the last third; the device shows neither frequency nor temperature"
    return ""


def _moved(drift: Drift, limits: Limits) -> str:
    way, cause = ("rose", "other work may have begun") if drift.change > 0 else ("fell", "other work may have ended")
    return f"block medians {way} by {abs(drift.change):.0%} during the measurement, allowed {limits.drift:.0%}; {cause}"


def _trusted(summary: LatencySummary, drift: Drift | None) -> str:
    moved = f", the block medians moved by {drift.change:+.1%}" if drift else ""
    return f"trusted: the 95 % interval of the median is {summary.relative_width:.1%} wide{moved}"


def _mann_kendall(values: Sequence[float]) -> float:
    """Return the two-sided p-value of a trend, by the normal approximation with continuity correction."""
    count = len(values)
    later = ((values[j] > values[i]) - (values[j] < values[i]) for i in range(count) for j in range(i + 1, count))
    score = abs(sum(later))
    ties = sum(tied * (tied - 1) * (2 * tied + 5) for tied in Counter(values).values())
    variance = (count * (count - 1) * (2 * count + 5) - ties) / 18
    if not score:
        return 1.0
    return math.erfc((score - 1) / math.sqrt(2 * variance))
