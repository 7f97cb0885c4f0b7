"""Finding what a budget is about: one function each, of one model that ships."""

from collections.abc import Callable
from dataclasses import dataclass

from mobilekd.release.answers import Answers, Classes
from mobilekd.release.gate_facts import Facts, Row
from mobilekd.release.paired import Drop, largest_class_drop, paired_drop

_ON_DEVICE = "attach the device, then build with --remeasure"
_EMULATE = "build with --set profile.device.place=emulator --remeasure"
_STEADIER = "cool the device and end other work, then build with --remeasure"
_RUN = "build where its runtime runs"
_AGAINST = "name the last release with --against"
_BUILD_AGAIN = "build both with this version of mobilekd"


@dataclass(frozen=True, slots=True)
class Reading:
    """What was found: a value, how sure it is, or why there is none and what would give one.

    Attributes:
        doubt: Why the value can't be trusted; empty where it can. It may still fail a budget, and holds none.
    """

    value: float | None
    note: str = ""
    mend: str = ""
    drop: Drop | None = None
    doubt: str = ""

    def settled(self, *, is_over: bool) -> "Reading":
        """Return what a budget is judged by: a value in doubt that would hold it is none, one that is over stays."""
        if not self.doubt:
            return self
        return Reading(self.value, self.doubt) if is_over else Reading(None, self.doubt, _STEADIER)


def latency(facts: Facts, deployment: str, _: Facts | None) -> Reading:
    """Return the median latency in ms, where it was measured on the target itself."""
    row = facts.latency_of(deployment)
    if not row.get("on_target") or row.get("p50_ms") is None:
        return Reading(None, _not_here(row), _ON_DEVICE)
    interval = row.get("ci95_ms")
    note = f"95 % interval {interval[0]:.3g} to {interval[1]:.3g} ms" if interval else ""
    return Reading(float(row["p50_ms"]), note, doubt=_doubt(row))


def instructions(facts: Facts, deployment: str, _: Facts | None) -> Reading:
    """Return the instructions of one inference, where an emulator counted them."""
    row = facts.latency_of(deployment)
    counted = row.get("guest_instructions")
    return Reading(float(counted["total"]), _ran_on(row)) if counted else Reading(None, _not_here(row), _EMULATE)


def peak_memory(facts: Facts, deployment: str, _: Facts | None) -> Reading:
    """Return the growth of memory in bytes, on the target or in a virtual machine: a host has other kernels."""
    row = facts.latency_of(deployment)
    is_there = row.get("on_target") or row.get("place") == "emulator"
    if not is_there or row.get("peak_memory_bytes") is None:
        return Reading(None, _not_here(row), f"{_ON_DEVICE}, or with --set profile.device.emulator=vm")
    return Reading(float(row["peak_memory_bytes"]), _ran_on(row))


def speedup(facts: Facts, deployment: str, _: Facts | None) -> Reading:
    """Return how many times faster int8 is than fp32: by latency on the target, or by instructions."""
    row = facts.latency_of(deployment)
    by_count = row.get("guest_instructions") is not None
    if row.get("int8_speedup") is None or not (by_count or row.get("on_target")):
        return Reading(None, _not_here(row), f"{_ON_DEVICE}, or take the emulator; keep benchmark.baseline = fp32")
    if by_count:
        return Reading(float(row["int8_speedup"]), f"instructions on {row['ran_on']}")
    beside = facts.latency_of(f"{row.get('backend')}-fp32")
    return Reading(float(row["int8_speedup"]), _overlap(row, beside), doubt=_doubt(row) or _doubt(beside, "fp32 is "))


def model_bytes(facts: Facts, deployment: str, _: Facts | None) -> Reading:
    """Return the size of the model's file."""
    size = next((row["bytes"] for row in facts.parity_of(deployment) if row.get("bytes") is not None), None)
    return Reading(size, "", "build it")


def bundle_bytes(facts: Facts, _: str, __: Facts | None) -> Reading:
    """Return the size of all files of the bundle."""
    return Reading(facts.bundle_bytes, "", "build to the end")


def agreement(facts: Facts, deployment: str, _: Facts | None) -> Reading:
    """Return the share of test images with the answer of the trained network, under the default kernels."""
    return _of_default(facts, deployment, "top1_agreement")


def error_steps(facts: Facts, deployment: str, _: Facts | None) -> Reading:
    """Return the mean error of a logit in output steps, under the default kernels."""
    return _of_default(facts, deployment, "mean_error_steps")


def network_drop(role: str) -> Callable[[Facts, str, Facts | None], Reading]:
    """Return what reads the loss of top-1 from a trained network; the worst kernels of a model count."""

    def read(facts: Facts, deployment: str, _: Facts | None) -> Reading:
        rows = facts.parity_of(deployment)
        found = [_network_drop(facts, role, row, is_default=row is rows[0]) for row in rows]
        known = [one for one in found if one.value is not None]
        # Rounded: of kernels that lose alike the default ones stand first, and they have an interval.
        return max(known, key=lambda one: round(one.value or 0.0, 9)) if known else Reading(None, _not_run(rows), _RUN)

    return read


def release_drop(facts: Facts, deployment: str, against: Facts | None) -> Reading:
    """Return the loss of top-1 from the same deployment of the last release."""
    if against is None:
        return Reading(None, "no last release is given", _AGAINST)
    pair = _answers_of_both(facts, deployment, against)
    if pair is not None:
        drop = paired_drop(*pair)
        return Reading(drop.loss, drop=drop)
    before, after = (_default_top1(one, deployment) for one in (against, facts))
    if before is None:
        return Reading(None, f"{against.name} did not run {deployment}", "take another last release")
    if after is None:
        return Reading(None, _not_run(facts.parity_of(deployment)), _RUN)
    return Reading(before - after, "no interval: one of the two carries no answers")


def class_drop(facts: Facts, deployment: str, _: Facts | None) -> Reading:
    """Return the largest loss of one class from the float student."""
    answers = facts.answers
    if answers is None or deployment not in answers.deployed or "student" not in answers.networks:
        note = _not_run(facts.parity_of(deployment)) if answers else "the bundle carries no answers"
        return Reading(None, note, _RUN if answers else "build it with this version of mobilekd")
    return _class_reading(answers, answers.networks["student"], answers.deployed[deployment])


def release_class_drop(facts: Facts, deployment: str, against: Facts | None) -> Reading:
    """Return the largest loss of one class from the same deployment of the last release."""
    if against is None:
        return Reading(None, "no last release is given", _AGAINST)
    pair = _answers_of_both(facts, deployment, against)
    if pair is None or facts.answers is None:
        return Reading(None, f"{deployment} has no answers in both releases", _BUILD_AGAIN)
    return _class_reading(facts.answers, pair[1], pair[2])


def _class_reading(answers: Answers, before: Classes, after: Classes) -> Reading:
    worst, drop = largest_class_drop(answers.labels, before, after, len(answers.classes))
    note = f"class {answers.classes[worst]!r}, the worst of {len(answers.classes)}"
    return Reading(drop.loss, note, drop=drop)


def _network_drop(facts: Facts, role: str, row: Row, *, is_default: bool) -> Reading:
    deployed, answers = row.get("top1_deployed"), facts.answers
    if deployed is None:
        return Reading(None)
    reference = answers.networks.get(role) if answers else None
    if answers is None or reference is None:
        before = row.get(f"top1_{role}", facts.top1.get(role))
        note = "no interval: no answers are at hand" if is_default else _kernels(row)
        return Reading(None if before is None else before - deployed, note)
    if is_default and row["deployment"] in answers.deployed:
        drop = paired_drop(answers.labels, reference, answers.deployed[row["deployment"]])
        return Reading(drop.loss, drop=drop)
    # Other kernel sets answer the first images alone, so the network is taken on those too.
    part = slice(row.get("images") or None)
    before = float((reference[part] == answers.labels[part]).mean())
    return Reading(before - deployed, _kernels(row))


def _answers_of_both(facts: Facts, deployment: str, against: Facts) -> tuple[Classes, Classes, Classes] | None:
    """Return labels, answers of the last release, answers of this one; None when one of them was not kept."""
    new, old = facts.answers, against.answers
    if new is None or old is None or deployment not in new.deployed or deployment not in old.deployed:
        return None
    return new.labels, old.deployed[deployment], new.deployed[deployment]


def _of_default(facts: Facts, deployment: str, key: str) -> Reading:
    rows = facts.parity_of(deployment)
    value = rows[0].get(key) if rows else None
    return Reading(value) if value is not None else Reading(None, _not_run(rows), _RUN)


def _default_top1(facts: Facts, deployment: str) -> float | None:
    rows = facts.parity_of(deployment)
    return rows[0].get("top1_deployed") if rows else None


def _doubt(row: Row, whose: str = "") -> str:
    """Return why a time can't be trusted; empty where it can, or where nothing judged it."""
    verdict = row.get("verdict")
    return "" if verdict in {None, "trusted"} else whose + str(row.get("verdict_reason") or verdict)


def _overlap(row: Row, beside: Row) -> str:
    """Return that the intervals of int8 and of the fp32 model beside it overlap; empty when they don't."""
    own, other = row.get("ci95_ms"), beside.get("ci95_ms")
    if not own or not other or own[0] > other[1] or other[0] > own[1]:
        return ""
    return "the 95 % intervals of int8 and fp32 overlap"


def _kernels(row: Row) -> str:
    images = row.get("images")
    return f"{row.get('kernels')} kernels" + (f", first {images:,} images" if images else "")


def _not_run(rows: "list[Row]") -> str:
    return str((rows[0].get("note") if rows else "") or "not run on this host")


def _ran_on(row: Row) -> str:
    return f"on {row['ran_on']}" if row.get("ran_on") else ""


def _not_here(row: Row) -> str:
    return str(row.get("note") or "") or (f"it ran on {row['ran_on']}" if row.get("ran_on") else "not run")
