"""Run the stages of a plan in order, each once, each in its own directory of the cache."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

from mobilekd.artifacts import Artifact
from mobilekd.cache import Cache
from mobilekd.config import Pipeline
from mobilekd.entry import Entry
from mobilekd.errors import MissingToolError, MobilekdError, StageError, first_code
from mobilekd.keys import key_of, key_parts
from mobilekd.plan import (
    ONCE,
    Again,
    PlannedStage,
    artifact,
    check_tools,
    make_plan,
    rehearse,
    reuse_note,
    why_not_cached,
)
from mobilekd.processes import Runner, run_here
from mobilekd.profile import Profile
from mobilekd.scan import Scanner
from mobilekd.shared_cache import HIT, UNSHARED, SharedCache
from mobilekd.stage import Context, Inputs, Progress, Stage
from mobilekd.wiring import expand, reads

A = TypeVar("A", bound=Artifact)


class Watcher(Progress, Protocol):
    """Who is told how a build goes on: the console."""

    def stage_starts(self, label: str, why: str) -> None:
        """Tell that a stage begins."""

    def stage_ends(self, label: str, note: str, *, cached: bool) -> None:
        """Tell that a stage is done; note is the time it took, or that it was reused."""

    def stage_fails(self, label: str, note: str) -> None:
        """Tell that a stage failed, or was left out because of one that did."""


@dataclass(frozen=True, slots=True)
class StageRecord:
    """What happened to one stage.

    Attributes:
        name: Its label, as "convert:tflite-int8".
        why: Why it ran, or how it was reused.
        seconds: Wall time in this build.
    """

    name: str
    key: str
    cached: bool
    seconds: float
    why: str
    entry: Entry


@dataclass(frozen=True, slots=True)
class BuildResult:
    """A finished build; `shared` says what the shared cache did, None without one."""

    pipeline: Pipeline
    profile: Profile
    stages: tuple[StageRecord, ...]
    made: tuple[Artifact, ...]
    seconds: float
    shared: dict[str, Any] | None = None

    def newest(self, kind: type[A]) -> A | None:
        """Return the newest artifact of a kind; None when the build stopped before it."""
        found = Inputs(self.made).all(kind)
        return found[-1] if found else None

    def the(self, kind: type[A]) -> A:
        """Return the newest artifact of a kind, of a build that ends behind it."""
        return Inputs(self.made).newest(kind)


@dataclass(frozen=True, slots=True)
class Workshop:
    """Where a build works: the cache, the converters' environments, who watches, and where TensorBoard reads.

    `run` runs a stage: in this process, or in all that torchrun started. `shared` is asked for what the cache lacks.
    """

    cache: Cache
    toolchains: Path
    watcher: Watcher
    events: Path | None = None
    run: Runner = run_here
    shared: SharedCache = UNSHARED

    def scanner(self) -> Scanner:
        """Return what digests the user's own files."""
        return Scanner(self.cache.root / "files.sqlite", self.watcher)


def plan(
    pipeline: Pipeline, profile: Profile, workshop: Workshop, *, until: str = "", again: Again = ONCE
) -> tuple[PlannedStage, ...]:
    """Return what `build` would do now, and why.

    Raises:
        ConfigError: The pipeline does not fit together, or data is not there.
    """
    stages, scan = expand(pipeline, profile, until), workshop.scanner().digest
    for note in pipeline.notes:
        workshop.watcher.say(note)
    return make_plan(stages, workshop.cache, scan, again, workshop.shared)


def build(
    pipeline: Pipeline, profile: Profile, workshop: Workshop, *, until: str = "", again: Again = ONCE
) -> BuildResult:
    """Run what is not in the cache, and return every artifact.

    A stage that fails does not stop those that do not read from it: one
    deployment that can't be converted leaves the others made and cached.

    Raises:
        ConfigError: Found before anything runs: wiring, data, networks, checkpoints.
        MissingToolError: Found before anything runs: all tools that are missing.
        StageError: A stage failed; if several did, the message names each.
    """
    began = time.monotonic()
    with workshop.cache.in_use():
        planned = plan(pipeline, profile, workshop, until=until, again=again)
        check_tools(planned)
        rehearse(planned)
        run = _Run(workshop, workshop.scanner().digest, again)
        for one in planned:
            run.step(one)
    if run.failures:
        raise _joined(run.failures)
    seconds = time.monotonic() - began
    return BuildResult(pipeline, profile, tuple(run.records), tuple(run.made), seconds, workshop.shared.facts())


@dataclass(slots=True)
class _Run:
    """The state of a build: what was made, and what can't be."""

    workshop: Workshop
    scan: Callable[[Path], str]
    again: Again
    made: list[Artifact] = field(default_factory=list)
    records: list[StageRecord] = field(default_factory=list)
    failures: dict[str, MobilekdError] = field(default_factory=dict)
    lost: set[type[Artifact]] = field(default_factory=set)
    is_off_plan: bool = False
    """A stage that was to come from the shared cache was made here, with other bytes: later keys are others too."""

    def step(self, planned: PlannedStage) -> None:
        """Reuse or run one stage; leave it out when what it reads could not be made."""
        if self.is_off_plan:
            planned = replace(planned, key="", parts={}, entry=None)
        stage, label = planned.stage, planned.stage.label()
        if reads(stage, self.lost):
            self.lost.add(stage.makes)
            self.workshop.watcher.stage_fails(label, "left out: what it reads could not be made")
            return
        try:
            is_here = planned.entry and not planned.is_shared
            record = self._reuse(stage, planned.entry) if planned.entry and is_here else self._make(planned)
        except (StageError, MissingToolError) as failure:
            self.failures[label] = failure
            self.lost.add(stage.makes)
            self.workshop.watcher.stage_fails(label, "failed")
            return
        self.is_off_plan |= planned.entry is not None and planned.entry.digest != record.entry.digest
        self.made.append(artifact(stage, record.entry))
        self.records.append(record)

    def _make(self, planned: PlannedStage) -> StageRecord:
        """Run a stage under the lock of its key, unless another build has just made the same."""
        stage, cache, watcher = planned.stage, self.workshop.cache, self.workshop.watcher
        label, name = stage.label(), stage.stage_name()
        parts = planned.parts or key_parts(stage, Inputs(self.made), self.scan)
        key = planned.key or key_of(parts)
        with cache.locked(key, lambda: watcher.say(f"{label}: another build makes the same; waiting for it")):
            forced = self.again.reason(stage)
            found = cache.find(name, key)
            if found.entry and not forced:
                return self._reuse(stage, found.entry)
            elsewhere = self.workshop.shared.bring(stage, parts, key, cache, is_wanted=not forced)
            if elsewhere.entry:
                return self._reuse(stage, elsewhere.entry, HIT)
            why = forced or why_not_cached(stage, parts, found.damage or elsewhere.damage, cache)
            watcher.stage_starts(label, why)
            began = time.monotonic()
            with cache.workspace(name, key, keep_scratch=not self.again.everything) as (out, scratch):
                workshop = self.workshop
                kept = cache.root / "soft-labels"
                context = Context(out, scratch, workshop.toolchains, watcher, workshop.events, kept)
                workshop.run(stage, Inputs(self.made), context)
                entry = cache.store(label, parts, key, time.monotonic() - began)
            self.workshop.shared.send(stage, entry)
        seconds = time.monotonic() - began
        watcher.stage_ends(label, f"{seconds:.1f} s", cached=False)
        return StageRecord(label, key, cached=False, seconds=seconds, why=why, entry=entry)

    def _reuse(self, stage: Stage, entry: Entry, note: str = "") -> StageRecord:
        note = note or reuse_note(stage, entry)
        self.workshop.cache.note_use(entry)
        self.workshop.watcher.stage_ends(stage.label(), note, cached=True)
        return StageRecord(stage.label(), entry.key, cached=True, seconds=0.0, why=note, entry=entry)


def _joined(failures: dict[str, MobilekdError]) -> MobilekdError:
    """Return one error that names every stage that failed; a missing tool only when all are."""
    told = "\n".join(f"{label}: {failure.message}" for label, failure in failures.items())
    hints = dict.fromkeys(failure.hint for failure in failures.values() if failure.hint)
    kinds: set[Any] = {type(failure) for failure in failures.values()}
    kind = MissingToolError if kinds == {MissingToolError} else StageError
    return kind(told, hint="; ".join(hints), code=first_code(failures.values(), kind.exit_code))
