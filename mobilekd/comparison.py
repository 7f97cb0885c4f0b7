"""Is one model slower than another? An interval of the ratio of their medians, from rounds in which both were timed.

The unit is the round: both models were timed in it, in an order drawn at random (`interleaving`). Its figure is
log(median of B) - log(median of A). Were B the same model as A, then exchanging the two names in any round would give
results that were as likely, so the sign of each round's figure is a fair coin whatever the noise is: heavy tails,
drift, steps of the frequency and correlation from block to block included. The Wilcoxon signed-rank test rests on
nothing else and is exact; the interval is the set of ratios that it does not reject (Hodges & Lehmann 1963; Hollander,
Wolfe & Chicken 2014, sections 3.2 and 3.3), the estimate the median of the Walsh averages.

`python -m benchmarks.comparison_power` compares it with a t interval and the percentile bootstrap over rounds
(docs/results/comparison_power.md): the bootstrap tells equal models apart too often, several times in a hundred at a
confidence of 99 % and 8 rounds; the t interval does about as well as this one, but nothing guarantees it.
"""

import functools
import itertools
import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from mobilekd.errors import DeviceError
from mobilekd.latency import percentile_ms

Difference = Literal["faster", "slower", "no difference"]

_DIGITS = 7  # of a millisecond: a tenth of a nanosecond, below any clock and above the rounding of differences of times
# A time of k + f ticks shows as k or k + 1. The median within the tick is then k + f, but for at most 0.086 of a tick.
_TICK_ERROR = 0.1


@dataclass(frozen=True, slots=True)
class Comparison:
    """What rounds say of a second model against a first one.

    Attributes:
        verdict: Of the second model. "no difference" also where the difference is real but below the margin, and where
            the rounds can't tell; `reason` says which.
        ratio: Median latency of the second over that of the first, from the rounds' log-ratios.
        interval: Interval of the ratio.
        confidence: Least probability that such an interval covers the ratio, in (0, 1).
        margin: Smallest relative difference that is called one.
        rounds: Number of rounds.
        first, second: Names of the models.
        first_p50_ms, second_p50_ms: Medians over all runs.
        reason: One sentence with the numbers.
    """

    verdict: Difference
    ratio: float
    interval: tuple[float, float]
    confidence: float
    margin: float
    rounds: int
    first: str
    second: str
    first_p50_ms: float
    second_p50_ms: float
    reason: str

    @property
    def is_equivalent(self) -> bool:
        """Return whether every ratio of the interval is within the margin: the two were shown to be equally fast."""
        return 1 / (1 + self.margin) <= self.interval[0] and self.interval[1] <= 1 + self.margin

    def to_json(self) -> dict[str, object]:
        """Return the fields, and `is_equivalent`."""
        return {**asdict(self), "interval": list(self.interval), "is_equivalent": self.is_equivalent}


def compare(
    first_blocks_ms: Sequence[Sequence[float]],
    second_blocks_ms: Sequence[Sequence[float]],
    *,
    names: tuple[str, str] = ("A", "B"),
    blocks_per_round: int = 2,
    confidence: float = 0.99,
    margin: float = 0.01,
) -> Comparison:
    """Return whether the second model is faster or slower than the first.

    A difference needs both: the interval excludes a ratio of 1, and the estimate is beyond the margin. A coarse clock
    widens the interval by what it hides.

    Args:
        first_blocks_ms: Wall times of each block in milliseconds, in time order; `blocks_per_round` from each round.
        second_blocks_ms: The same of the second model, from the same rounds.
        names: For the sentence.
        blocks_per_round: 2 for the mirrored rounds of `interleaving`.
        confidence: Of the interval, in (0, 1). 0.99: at 0.95 one in 20 comparisons of equal models finds one.
        margin: Relative difference; below it one that is real is told, but not called one.

    Raises:
        DeviceError: The blocks are not whole rounds of both models, a time is not above 0 ms, or the rounds are too
            few for any interval of this confidence.
    """
    logs = log_ratios(first_blocks_ms, second_blocks_ms, blocks_per_round=blocks_per_round)
    p50s = (_pooled_p50_ms(first_blocks_ms), _pooled_p50_ms(second_blocks_ms))
    slack = _TICK_ERROR * _tick_ms(first_blocks_ms, second_blocks_ms) * (1 / p50s[0] + 1 / p50s[1])
    center, low, high = signed_rank_interval(logs, confidence)
    low, high = low - slack, high + slack
    ratio, interval = math.exp(center), (math.exp(low), math.exp(high))
    is_real = not low <= 0 <= high
    is_large = max(ratio, 1 / ratio) > 1 + margin
    verdict: Difference = "no difference" if not (is_real and is_large) else "slower" if center > 0 else "faster"
    found = f"{names[1]} takes {_change(ratio)} than {names[0]}"
    evidence = f"{confidence * 100:g} % interval {_signed(interval[0])} to {_signed(interval[1])}, {len(logs)} rounds"
    ending = "" if verdict != "no difference" else _why_no_difference(interval, margin, is_real=is_real)
    reason = f"{verdict}: {found} ({evidence}){ending}"
    return Comparison(verdict, ratio, interval, confidence, margin, len(logs), *names, *p50s, reason)


def log_ratios(
    first_blocks_ms: Sequence[Sequence[float]],
    second_blocks_ms: Sequence[Sequence[float]],
    *,
    blocks_per_round: int = 2,
) -> list[float]:
    """Return log(second / first) of each round, from the mean log-median of its blocks.

    The mean of the blocks' logs, not the median of all their runs: in A B B A with a step of the frequency in the
    middle both models have one block at each frequency, and the step cancels.

    Raises:
        DeviceError: The blocks are not whole rounds of both models, or a time is not above 0 ms.
    """
    counts = len(first_blocks_ms), len(second_blocks_ms)
    if counts[0] != counts[1] or counts[0] % blocks_per_round:
        raise DeviceError(
            f"{counts[0]} and {counts[1]} blocks are not whole rounds of {blocks_per_round} a model", code="MKD-508"
        )
    tick_ms = _tick_ms(first_blocks_ms, second_blocks_ms)
    first, second = (
        [_log_median(block, tick_ms) for block in blocks] for blocks in (first_blocks_ms, second_blocks_ms)
    )
    starts = range(0, counts[0], blocks_per_round)
    return [
        sum(second[at : at + blocks_per_round]) / blocks_per_round
        - sum(first[at : at + blocks_per_round]) / blocks_per_round
        for at in starts
    ]


def signed_rank_interval(values: Sequence[float], confidence: float) -> tuple[float, float, float]:
    """Return the median of the Walsh averages and the interval that the exact signed-rank test does not reject.

    Args:
        values: One figure a round; symmetric about its centre.
        confidence: In (0, 1); the interval's own is at least this, and more in steps of the test.

    Returns:
        Estimate, low end, high end.

    Raises:
        DeviceError: Too few values: 2 / 2^n is above 1 - confidence.

    Example:
        >>> signed_rank_interval([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 0.95)
        (3.5, 1.0, 6.0)
    """
    rejected = _largest_rejected(len(values), confidence)
    walsh = sorted((value + other) / 2 for index, value in enumerate(values) for other in values[index:])
    middle = len(walsh) // 2
    center = walsh[middle] if len(walsh) % 2 else (walsh[middle - 1] + walsh[middle]) / 2
    return center, walsh[rejected], walsh[-1 - rejected]


def least_rounds(confidence: float) -> int:
    """Return the smallest number of rounds that can give an interval of this confidence.

    Example:
        >>> least_rounds(0.99)
        8
    """
    return math.ceil(math.log2(2 / (1 - confidence)))


@functools.cache
def _largest_rejected(rounds: int, confidence: float) -> int:
    """Return the largest rank sum w with P(W <= w) <= (1 - confidence) / 2 when every sign is a fair coin."""
    needed = least_rounds(confidence)
    if rounds < needed:
        raise DeviceError(
            f"{rounds} rounds can't give an interval of {confidence * 100:g} %",
            hint=f"give at least {needed} rounds of both models",
            code="MKD-508",
        )
    chances = [1.0]  # of each rank sum, with the ranks so far
    for rank in range(1, rounds + 1):
        without, with_rank = chances + [0.0] * rank, [0.0] * rank + chances
        chances = [(one + other) / 2 for one, other in zip(without, with_rank, strict=True)]
    allowed, total, largest = (1 - confidence) / 2, 0.0, -1
    for chance in chances:
        total += chance
        if total > allowed:
            break
        largest += 1
    return max(largest, 0)


def _log_median(block_ms: Sequence[float], tick_ms: float) -> float:
    """Return the log of the median, taken within the clock's tick: a plain one would be off by up to half a tick."""
    rounded = [round(sample, _DIGITS) for sample in block_ms]
    if not rounded or not all(0 < sample < math.inf for sample in rounded):
        raise DeviceError(
            f"a block of {len(rounded)} runs has a time that is not above 0 ms, or none",
            hint="a clock that is too coarse shows 0: time several inferences as one run",
            code="MKD-508",
        )
    median = statistics.median_grouped(rounded, tick_ms) if tick_ms else statistics.median(rounded)
    return math.log(median)


def _tick_ms(*models_ms: Sequence[Sequence[float]]) -> float:
    """Return the smallest difference between two times: the clock's tick where it is coarse, else next to nothing."""
    samples = (sample for blocks in models_ms for block in blocks for sample in block)
    values = sorted({round(sample, _DIGITS) for sample in samples})
    return min((later - earlier for earlier, later in itertools.pairwise(values)), default=0.0)


def _pooled_p50_ms(blocks_ms: Sequence[Sequence[float]]) -> float:
    return percentile_ms([sample for block in blocks_ms for sample in block], 50)


def _why_no_difference(interval: tuple[float, float], margin: float, *, is_real: bool) -> str:
    largest = max(interval[1], 1 / interval[0]) - 1
    if is_real:
        return f"; real, but not beyond the margin of {margin:.1%}"
    if largest <= margin:
        return f"; any is within the margin of {margin:.1%}"
    return f"; the rounds can't tell: up to {largest:.1%} is not excluded"


def _change(ratio: float) -> str:
    return f"{abs(ratio - 1):.1%} {'more' if ratio >= 1 else 'less'} time"


def _signed(ratio: float) -> str:
    return f"{ratio - 1:+.1%}"
