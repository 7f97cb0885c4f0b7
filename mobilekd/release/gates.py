"""Does a release hold its budgets? One row for each budget and each model that ships."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from mobilekd.profile import Budget
from mobilekd.release.gate_facts import Facts
from mobilekd.release.gate_readings import (
    Reading,
    agreement,
    bundle_bytes,
    class_drop,
    error_steps,
    instructions,
    latency,
    model_bytes,
    network_drop,
    peak_memory,
    release_class_drop,
    release_drop,
    speedup,
)
from mobilekd.release.paired import Drop
from mobilekd.release.spdx import is_allowed

Verdict = Literal["holds", "over", "not measured"]

_ROUNDING = 1e-9  # 0.98 - 0.97 is 0.010000000000000009
_NOT_STATED = "not stated"
_TOOL = "tool "
_STATE_LICENCES = "state them: bundle.licence (models), data.licence, bundle.network_licences"


@dataclass(frozen=True, slots=True)
class Gate:
    """One budget, and whether one model (or the bundle as a whole) holds it.

    Attributes:
        budget: Its key in [budget].
        deployment: Empty for the bundle as a whole.
        measured: What was found, in the unit of the budget; None when it was not measured.
        limit: The budget.
        shown, allowed: Both in words, with their unit.
        claim: What was found, as the start of a sentence.
        note: How sure it is, or why it was not measured.
        next_step: What to do about it; empty when it holds.
        drop: The paired comparison behind a loss of accuracy.
    """

    budget: str
    deployment: str
    verdict: Verdict
    measured: float | str | None
    limit: float | bool | tuple[str, ...]
    shown: str
    allowed: str
    claim: str
    note: str = ""
    next_step: str = ""
    drop: Drop | None = None

    @property
    def subject(self) -> str:
        """Return what is judged."""
        return self.deployment or "the bundle"

    def sentence(self) -> str:
        """Return the gate in one sentence."""
        if self.verdict == "not measured":
            reason = f" ({self.note})" if self.note else ""
            return f"{self.subject}: budget.{self.budget} was not measured{reason}: {self.next_step}"
        return f"{self.subject}: {self.claim}, budget {self.allowed} (budget.{self.budget}): {self.next_step}"

    def to_json(self) -> dict[str, object]:
        """Return plain JSON values."""
        limit = list(self.limit) if isinstance(self.limit, tuple) else self.limit
        found: dict[str, object] = {"budget": self.budget, "deployment": self.deployment or None}
        found |= {"measured": self.measured, "limit": limit, "verdict": self.verdict}
        found |= {"shown": self.shown, "allowed": self.allowed, "note": self.note, "next_step": self.next_step}
        drop = self.drop
        interval = [drop.low, drop.high] if drop else None
        is_near = drop.is_near(float(self.limit)) if drop and not isinstance(self.limit, tuple) else None
        return {**found, "interval95": interval, "images": drop.images if drop else None, "within_noise": is_near}


def check(
    budget: Budget, facts: Facts, against: Facts | None = None, keys: Iterable[str] | None = None
) -> tuple[Gate, ...]:
    """Return a row for each budget that is set and each model that ships; none when no model was built.

    Args:
        budget: An absent budget is not checked.
        facts: What was built.
        against: The last release, comparable with this one (`check_comparable`); None when none was given.
        keys: Check these budgets alone; all when None.
    """
    if not facts.deployments:
        return ()
    limits = {key: getattr(budget, key) for key in (RULES if keys is None else keys)}
    return tuple(
        gate
        for key, limit in limits.items()
        if limit is not None and limit is not False
        for gate in RULES[key].gates(key, limit, facts, against)
    )


class Words(Protocol):
    """Writes a value with its unit, to as many further digits as asked for."""

    def __call__(self, value: float, further: int = 0) -> str:
        """Return the words."""


class Rule(Protocol):
    """How one budget is checked."""

    def gates(self, key: str, limit: Any, facts: Facts, against: Facts | None) -> Iterable[Gate]:
        """Return the rows of this budget."""


Read = Callable[[Facts, str, Facts | None], Reading]
"""Finds what one budget is about, of one model: from this release, and from the last one."""


@dataclass(frozen=True, slots=True)
class Bound:
    """A number that may not be passed.

    Attributes:
        read: Finds the number.
        words: Writes it.
        claim: A sentence with a place for the number.
        mend: What to do when it is passed.
        at_least: The number may not be lower, else not higher.
        of_bundle: One row for the whole bundle, else one a model.
    """

    read: Read
    words: Words
    claim: str
    mend: str
    at_least: bool = False
    of_bundle: bool = False

    def gates(self, key: str, limit: float, facts: Facts, against: Facts | None) -> Iterable[Gate]:
        """Return a row a model."""
        for deployment in ("",) if self.of_bundle else facts.deployments:
            yield self._gate(key, limit, deployment, self.read(facts, deployment, against))

    def _gate(self, key: str, limit: float, deployment: str, reading: Reading) -> Gate:
        is_over = reading.value is not None and self._is_over(reading.value, limit)
        reading = reading.settled(is_over=is_over)
        value = reading.value
        sign = "at least " if self.at_least else ""
        if value is None:
            allowed = sign + self.words(limit)
            return Gate(
                key, deployment, "not measured", None, limit, "-", allowed, "", reading.note, reading.mend, None
            )
        further = _digits_that_differ(self.words, value, limit) if is_over else 0
        shown, allowed = self.words(value, further), sign + self.words(limit, further)
        mend = f"{self.mend} or raise the budget" if is_over and not self.at_least else self.mend if is_over else ""
        verdict: Verdict = "over" if is_over else "holds"
        note = _with_noise(reading, limit)
        claim = self.claim.format(shown)
        return Gate(key, deployment, verdict, value, limit, shown, allowed, claim, note, mend, reading.drop)

    def _is_over(self, value: float, limit: float) -> bool:
        return value < limit - _ROUNDING if self.at_least else value > limit + _ROUNDING


@dataclass(frozen=True, slots=True)
class Faster:
    """An int8 model must be faster than fp32 on the same runtime, or it is no use."""

    def gates(self, key: str, limit: bool, facts: Facts, against: Facts | None) -> Iterable[Gate]:  # noqa: FBT001
        """Return a row for each int8 model."""
        for deployment in facts.deployments:
            if not any(row.get("precision") == "int8" for row in facts.parity_of(deployment)):
                continue
            found = speedup(facts, deployment, against)
            is_over = found.value is not None and found.value <= 1
            reading = found.settled(is_over=is_over)
            start = (key, deployment)
            if reading.value is None:
                yield Gate(*start, "not measured", None, limit, "-", "faster", "", reading.note, reading.mend)
                continue
            shown = _times(reading.value)
            mend = "ship fp32 here, or pick another backend" if is_over else ""
            claim = f"int8 is {shown} as fast as fp32"
            verdict: Verdict = "over" if is_over else "holds"
            yield Gate(*start, verdict, reading.value, limit, shown, "faster than fp32", claim, reading.note, mend)


@dataclass(frozen=True, slots=True)
class Allowed:
    """Every licence must be one of a list; those of tools do not count, as no tool is in the bundle."""

    def gates(self, key: str, limit: tuple[str, ...], facts: Facts, against: Facts | None) -> Iterable[Gate]:
        """Return one row for the bundle."""
        del against
        allowed = ", ".join(limit)
        if not facts.licences:
            yield Gate(key, "", "not measured", None, limit, "-", allowed, "", "", "build the bundle")
            return
        counted = [one for one in facts.licences if not one.covers.startswith(_TOOL)]
        refused = [one for one in counted if one.licence == _NOT_STATED or not is_allowed(one.licence, limit)]
        if not refused:
            shown = ", ".join(dict.fromkeys(one.licence for one in counted))
            yield Gate(key, "", "holds", shown, limit, shown, allowed, shown)
            return
        shown = plain("; ".join(f"{one.covers}: {one.licence}" for one in refused))
        silent = any(one.licence == _NOT_STATED for one in refused)
        mend = _STATE_LICENCES if silent else "replace it, or allow it in budget.licences"
        yield Gate(key, "", "over", shown, limit, shown, allowed, shown, "", mend)


def plain(text: str) -> str:
    """Return a text of a bundle without signs that steer a terminal, and that XML has no way to write."""
    return "".join(one if one in "\t\n" or one.isprintable() else "\ufffd" for one in text)


def _with_noise(reading: Reading, limit: float) -> str:
    drop = reading.drop
    if drop is None:
        return reading.note
    interval = f"95 % interval {100 * drop.low:.2f} to {100 * drop.high:.2f} points, {drop.images:,} images"
    noise = f"the limit is within the noise of {drop.images:,} images" if drop.is_near(limit) else ""
    return "; ".join(part for part in (reading.note, interval, noise) if part)


def _digits_that_differ(words: Words, value: float, limit: float) -> int:
    return next((digits for digits in range(9) if words(value, digits) != words(limit, digits)), 9)


def _ms(value: float, further: int = 0) -> str:
    return f"{value:.{3 + further}g} ms"


def _megabytes(value: float, further: int = 0) -> str:
    return f"{value / 1e6:.{1 + further}f} MB" if value >= 1e6 and further < 6 else f"{value:,.0f} bytes"


def _millions(value: float, further: int = 0) -> str:
    return f"{value / 1e6:.{2 + further}f} M instr."


def _points(value: float, further: int = 0) -> str:
    return f"{100 * value:.{2 + further}f} points"


def _percent(value: float, further: int = 0) -> str:
    return f"{100 * value:.{2 + further}f} %"


def _steps(value: float, further: int = 0) -> str:
    return f"{value:.{3 + further}g} steps"


def _times(value: float) -> str:
    return f"{value:.3g} times"


_TRAIN = "train longer, pick a bigger student"
_QUANTIZE = "keep layers in float (max_top1_drop), train int8 longer"
_BISECT = "find the layer with mobilekd parity BUNDLE --bisect"
_COMPARE = "see what changed since the last release"

RULES: Mapping[str, Rule] = {
    "p50_ms": Bound(latency, _ms, "median latency {}", "pick a smaller student, another backend"),
    "guest_instructions": Bound(instructions, _millions, "{} an inference", "pick a smaller student, another backend"),
    "int8_beats_fp32": Faster(),
    "model_bytes": Bound(model_bytes, _megabytes, "{} model", "pick a smaller student"),
    "bundle_bytes": Bound(bundle_bytes, _megabytes, "{} of files", "drop a deployment", of_bundle=True),
    "peak_memory_bytes": Bound(peak_memory, _megabytes, "{} of memory", "pick a smaller student, another backend"),
    "top1_drop": Bound(network_drop("teacher"), _points, "top-1 is {} below the teacher's", _TRAIN),
    "student_top1_drop": Bound(network_drop("student"), _points, "top-1 is {} below the float student's", _QUANTIZE),
    "release_top1_drop": Bound(release_drop, _points, "top-1 is {} below the last release's", _COMPARE),
    "class_top1_drop": Bound(class_drop, _points, "a class is {} below the float student's", _QUANTIZE),
    "release_class_top1_drop": Bound(release_class_drop, _points, "a class is {} below the last release's", _COMPARE),
    "agreement": Bound(
        agreement,
        _percent,
        "{} of the answers are the trained network's",
        f"{_BISECT}, or lower the budget",
        at_least=True,
    ),
    "error_steps": Bound(error_steps, _steps, "mean error of {}", _BISECT),
    "licences": Allowed(),
}
PROVED = ("model_bytes", "top1_drop", "student_top1_drop", "class_top1_drop", "agreement", "error_steps", "licences")
"""What stands under the digest of a bundle."""
MEASURED = ("p50_ms", "guest_instructions", "int8_beats_fp32", "peak_memory_bytes")
"""What stands beside the measurements."""
