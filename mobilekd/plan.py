"""What a build would do, stage by stage, and why."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mobilekd.artifacts import Artifact
from mobilekd.cache import Cache
from mobilekd.entry import Entry
from mobilekd.errors import ConfigError, MissingToolError
from mobilekd.keys import differences, key_of, key_parts, made_by
from mobilekd.shared_cache import HIT, UNSHARED, SharedCache
from mobilekd.stage import Ahead, Inputs, Stage
from mobilekd.wiring import reads

_SHOWN_DIFFERENCES = 3


@dataclass(frozen=True, slots=True)
class Again:
    """What is made again although it is in the cache.

    Attributes:
        everything: --fresh: every stage, from its first step.
        measurements: --remeasure: the stages that measure.
    """

    everything: bool = False
    measurements: bool = False

    def reason(self, stage: Stage) -> str:
        """Return the option that makes this stage run again; empty when none does."""
        if self.everything:
            return "--fresh"
        return "--remeasure" if self.measurements and stage.measures else ""


ONCE = Again()


@dataclass(frozen=True, slots=True)
class PlannedStage:
    """One stage of a plan.

    Attributes:
        key: Empty when it can't be known yet: a stage that it reads from runs before it.
        parts: What the key is made of; empty like the key.
        entry: What is reused; None when the stage will run.
        why: Why it runs, or "cached" and, for a measurement, its date.
        last: The newest entry of this stage, for an estimate of time and size; None when it never ran here.
        is_shared: True when the entry is in the shared cache, and is got from there when the build needs it.
    """

    stage: Stage
    key: str
    parts: dict[str, Any]
    entry: Entry | None
    why: str
    last: Entry | None
    is_shared: bool = False


def make_plan(
    stages: Sequence[Stage],
    cache: Cache,
    scan: Callable[[Path], str],
    again: Again,
    shared: SharedCache = UNSHARED,
) -> tuple[PlannedStage, ...]:
    """Return what a build of these stages would do now. Nothing is written."""
    planned: list[PlannedStage] = []
    made: list[Artifact] = []
    for stage in stages:
        runs = [one for one in planned if one.entry is None]
        upstream = [one.stage.label() for one in runs if reads(stage, {one.stage.makes})]
        if upstream:
            why = f"{upstream[-1]} runs before it"
            planned.append(PlannedStage(stage, "", {}, None, why, _last(stage, cache)))
            continue
        parts = key_parts(stage, Inputs(made), scan)
        one = _plan_one(stage, parts, cache, again, shared)
        planned.append(one)
        if one.entry:
            made.append(artifact(stage, one.entry))
    return tuple(planned)


def check_tools(planned: Sequence[PlannedStage]) -> None:
    """Accept a plan whose stages find their tools.

    Raises:
        MissingToolError: All that is missing, a line each.
    """
    lines = [(one.stage.label(), line) for one in planned if one.entry is None for line in one.stage.missing()]
    stages_of: dict[str, list[str]] = {}
    for label, line in lines:
        stages_of.setdefault(line, []).append(label)
    if stages_of:
        told = [f"{', '.join(labels)}: {line}" for line, labels in stages_of.items()]
        raise MissingToolError(
            "\n".join(told), hint="mobilekd doctor shows all that is installed and what is not", code="MKD-307"
        )


def rehearse(planned: Sequence[PlannedStage]) -> None:
    """Accept a plan whose stages, of those that will run, find no fault in what they can try beforehand.

    Raises:
        ConfigError: All that was found, a line each.
    """
    before: list[Ahead] = []
    failures: list[ConfigError] = []
    stages_of: dict[str, list[str]] = {}
    for one in planned:
        try:
            if one.entry is None:
                one.stage.rehearse(before)
        except ConfigError as failure:
            failures.append(failure)
            stages_of.setdefault(failure.message, []).append(one.stage.label())
        is_here = one.entry is not None and not one.is_shared
        before.append(Ahead(one.stage, artifact(one.stage, one.entry) if one.entry and is_here else None))
    if failures:
        told = "\n".join(f"{', '.join(labels)}: {message}" for message, labels in stages_of.items())
        hints = dict.fromkeys(failure.hint for failure in failures if failure.hint)
        raise ConfigError(told, hint="; ".join(hints), code=failures[0].code) from failures[0]


def artifact(stage: Stage, entry: Entry) -> Artifact:
    """Return the typed artifact of a finished stage."""
    return stage.makes(entry.path, entry.digest, made_by(stage, entry.parts))


def reuse_note(stage: Stage, entry: Entry) -> str:
    """Return how a reused entry is told; a measurement with its date."""
    return f"measured {entry.created[:10]}" if stage.measures else "cached"


def why_not_cached(stage: Stage, parts: dict[str, Any], damage: str, cache: Cache) -> str:
    """Return why there is no entry for these parts: damage, or what differs from the nearest entry of this stage."""
    if damage:
        return f"the entry is damaged: {damage}"
    others = [one for one in cache.entries(stage.stage_name()) if one.label == stage.label()]
    if not others:
        return "no entry yet"
    # min keeps the first of equals, and entries come newest first.
    told = min((differences(one.parts, parts) for one in others), key=len)
    more = f" and {len(told) - _SHOWN_DIFFERENCES} more" if len(told) > _SHOWN_DIFFERENCES else ""
    return ", ".join(told[:_SHOWN_DIFFERENCES]) + more or "the entry was removed"


def _plan_one(stage: Stage, parts: dict[str, Any], cache: Cache, again: Again, shared: SharedCache) -> PlannedStage:
    key = key_of(parts)
    last = _last(stage, cache)
    if forced := again.reason(stage):
        return PlannedStage(stage, key, parts, None, forced, last)
    found = cache.find(stage.stage_name(), key)
    if found.entry:
        return PlannedStage(stage, key, parts, found.entry, reuse_note(stage, found.entry), found.entry)
    elsewhere = shared.find(stage, parts, key, cache)
    if elsewhere.entry:
        return PlannedStage(stage, key, parts, elsewhere.entry, HIT, elsewhere.entry, is_shared=True)
    damage = found.damage or elsewhere.damage
    return PlannedStage(stage, key, parts, None, why_not_cached(stage, parts, damage, cache), last)


def _last(stage: Stage, cache: Cache) -> Entry | None:
    entries = (one for one in cache.entries(stage.stage_name()) if one.label == stage.label())
    return next(entries, None)
