"""One student of a sweep: how it is built, and what is kept of it."""

import contextlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Protocol

from mobilekd.artifacts import Baseline, Student, canonical_json
from mobilekd.config import Override, Pipeline, load_pipeline, load_profile
from mobilekd.delivery import latency_rows, parity_rows
from mobilekd.errors import ConfigError, StageError
from mobilekd.pipeline import BuildResult, Workshop, build
from mobilekd.pipeline import plan as plan_stages
from mobilekd.plan import check_tools
from mobilekd.profile import Profile
from mobilekd.sweep_grid import Axis
from mobilekd.sweep_space import Combination
from mobilekd.train import BASELINE, LAST, read_json, train_pipeline
from mobilekd.training.against_alone import against_alone
from mobilekd.wiring import expand


@dataclass(frozen=True, slots=True)
class SweepPlan:
    """What is tried.

    Attributes:
        seeds: Students of each combination; teacher and split of the data stay the same.
        trials: Combinations to try; None for all.
        until: Last stage of each trial.
        overrides: Hold for every trial.
        baseline: Whether each student is trained without a teacher too.
    """

    axes: tuple[Axis, ...]
    seeds: int = 1
    trials: int | None = None
    until: str = LAST
    pipeline: str = "quickstart"
    profile: str = "host"
    overrides: tuple[Override, ...] = ()
    baseline: bool = False

    def text(self) -> str:
        """Return what a study must keep to: all but the number of trials."""
        fixed = {"/".join(one.keys): one.value for one in self.overrides}
        axes = {one.key: list(one.choices) for one in self.axes}
        named = {key: getattr(self, key) for key in ("seeds", "until", "pipeline", "profile")}
        named |= {"baseline": True} if self.baseline else {}
        return canonical_json({**named, "axes": axes, "set": fixed})


@dataclass(frozen=True, slots=True)
class TrialRun:
    """One student.

    Attributes:
        bytes: Of the first int8 model that was built, named in `bytes_of`; without one, a byte a parameter.
        seconds: Of training the student, now or when it was made.
        latency_ms: Median of that model; None when it was not measured.
        instructions: Of one inference of that model on an emulator; None when none was counted.
        alone_top1_validation, alone_top1_test: Of the same network without a teacher; None without --baseline.
        diagnoses: What the comparison with it found: {"code", "cause", "evidence", "next_step"}.
    """

    seed: int
    top1_validation: float
    top1_test: float
    parameters: int
    bytes: int
    bytes_of: str
    seconds: float
    latency_ms: float | None = None
    instructions: int | None = None
    latency_of: str = ""
    alone_top1_validation: float | None = None
    alone_top1_test: float | None = None
    diagnoses: tuple[Mapping[str, str], ...] = ()


class Builder(Protocol):
    """Who makes students."""

    def check(self, plan: SweepPlan, example: Combination, workshop: Workshop) -> None:
        """Find what no combination can be made without, before anything is written; cheap."""

    def prepare(self, plan: SweepPlan, example: Combination, workshop: Workshop) -> None:
        """Make what all combinations share; a failure here is one of them all, and ends the sweep."""

    def student(self, plan: SweepPlan, combination: Combination, index: int, workshop: Workshop) -> TrialRun:
        """Make the index-th student of a combination."""


class Builds:
    """Makes students with `build`; the cache keeps what they share."""

    def check(self, plan: SweepPlan, example: Combination, workshop: Workshop) -> None:
        """Look for the profile, the last stage, data and tools."""
        pipeline, profile = _loaded(plan, example)
        names = _names(plan, pipeline, profile)
        if LAST not in names:
            raise ConfigError(
                f"--until {plan.until}: the students are made by a later stage",
                hint=f"--until {LAST}, or a stage behind it",
                code="MKD-223",
            )
        for shared in _shared_stages(names, plan.axes)[-1:]:
            plan_stages(pipeline, profile, workshop, until=shared)
        with contextlib.suppress(ConfigError):  # a checkpoint of this combination alone: told by its own trial
            check_tools(plan_stages(pipeline, profile, workshop, until=plan.until))

    def prepare(self, plan: SweepPlan, example: Combination, workshop: Workshop) -> None:
        """Build the stages before the first that an axis changes."""
        pipeline, profile = _loaded(plan, example)
        for shared in _shared_stages(_names(plan, pipeline, profile), plan.axes)[-1:]:
            build(pipeline, profile, workshop, until=shared)

    def student(self, plan: SweepPlan, combination: Combination, index: int, workshop: Workshop) -> TrialRun:
        """Build a combination with its index-th seed as far as the plan says, and its baseline where one is wanted."""
        seed = load_pipeline(plan.pipeline, combination.overrides).seed + index
        seeded = Override((LAST, "seed"), seed, f"seed {seed} of the sweep")
        pipeline, profile = _loaded(plan, combination, seeded)
        result = build(pipeline, profile, workshop, until=plan.until)
        run, student = _measured(result, seed), result.the(Student).path
        if not plan.baseline:
            return run
        alone = build(_with_alone(pipeline), profile, workshop, until=BASELINE).the(Baseline).path
        metrics, worse = read_json(alone / "metrics.json"), against_alone(student, alone)
        return replace(
            run,
            alone_top1_validation=metrics["top1_validation"],
            alone_top1_test=metrics["top1_test"],
            diagnoses=({"code": worse.code, **asdict(worse)},) if worse else (),
        )


def _loaded(plan: SweepPlan, combination: Combination, *more: Override) -> tuple[Pipeline, Profile]:
    overrides = [*combination.overrides, *more]
    return load_pipeline(plan.pipeline, overrides), load_profile(plan.profile, overrides)


def _names(plan: SweepPlan, pipeline: Pipeline, profile: Profile) -> list[str]:
    return [one.stage_name() for one in expand(pipeline, profile, plan.until)]


def _shared_stages(names: list[str], axes: tuple[Axis, ...]) -> list[str]:
    """Return the stages that are the same for every combination.

    Example:
        >>> _shared_stages(["data", "teacher", "distill"], (Axis("distill.epochs", (1, 2)),))
        ['data', 'teacher']
        >>> _shared_stages(["data", "teacher", "distill"], (Axis("seed", (1, 2)),))
        []
    """
    varied = [one.key.partition(".")[0] for one in axes]
    if not set(varied) <= set(names):  # the seed of the pipeline, or the profile
        return []
    return names[: min(names.index(one) for one in (*varied, LAST))]


def _with_alone(pipeline: Pipeline) -> Pipeline:
    """Return a pipeline whose stage `alone` has the options of this `distill`, whatever the file gives it."""
    stages = tuple(one for one in pipeline.stages if one.stage_name() != BASELINE)
    return train_pipeline(replace(pipeline, stages=stages), baseline=True)


def _measured(result: BuildResult, seed: int) -> TrialRun:
    metrics = read_json(result.the(Student).path / "metrics.json")
    if metrics.get("top1_validation") is None:
        raise StageError("the student has no top-1 on validation images to be ranked by", hint="distill.epochs above 0")
    parameters = int(metrics["parameters"])
    int8 = next((row for row in parity_rows(result) if row["precision"] == "int8" and row.get("bytes")), {})
    name = int8.get("deployment", "")
    latency = next((row for row in latency_rows(result) if row["deployment"] == name), {})
    record = next(one for one in result.stages if one.name == LAST)
    return TrialRun(
        seed=seed,
        top1_validation=metrics["top1_validation"],
        top1_test=metrics["top1_test"],
        parameters=parameters,
        bytes=int(int8.get("bytes", parameters)),
        bytes_of=name or "a byte a parameter",
        seconds=round(record.entry.seconds, 3),
        latency_ms=latency.get("p50_ms"),
        instructions=(latency.get("guest_instructions") or {}).get("total"),
        latency_of=str(latency.get("ran_on", "")),
    )
