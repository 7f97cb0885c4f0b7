"""Many distillations, ranked: every combination of a grid, each with several seeds, remembered across kills."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobilekd.artifacts import Student, canonical_json
from mobilekd.config import Override, load_pipeline, load_profile
from mobilekd.delivery import latency_rows, parity_rows
from mobilekd.errors import StageError
from mobilekd.pipeline import BuildResult, Workshop, build
from mobilekd.sweep_grid import Axis, Values, grid_size, overrides_for
from mobilekd.sweep_report import SCHEMA, group, write_report
from mobilekd.sweep_store import ERROR, is_finished, is_grid, open_study, revive, sampler_for, sign
from mobilekd.train import LAST, read_json

if TYPE_CHECKING:
    from optuna import Study, Trial


@dataclass(frozen=True, slots=True)
class SweepPlan:
    """What is tried.

    Attributes:
        seeds: Students of each combination; teacher and split of the data stay the same.
        trials: Combinations to try; None for all.
        until: Last stage of each trial.
        overrides: Hold for every trial.
    """

    axes: tuple[Axis, ...]
    seeds: int = 1
    trials: int | None = None
    until: str = LAST
    pipeline: str = "quickstart"
    profile: str = "host"
    overrides: tuple[Override, ...] = ()

    def text(self) -> str:
        """Return what a study must keep to: all but the number of trials."""
        fixed = {"/".join(one.keys): one.value for one in self.overrides}
        axes = {one.key: list(one.choices) for one in self.axes}
        named = {key: getattr(self, key) for key in ("seeds", "until", "pipeline", "profile")}
        return canonical_json({**named, "axes": axes, "set": fixed})


@dataclass(frozen=True, slots=True)
class TrialRun:
    """One student.

    Attributes:
        bytes: Of the first int8 model that was built, named in `bytes_of`; without one, a byte a parameter.
        seconds: Of training the student, now or when it was made.
        latency_ms: Median of that model; None when it was not measured.
        instructions: Of one inference of that model on an emulator; None when none was counted.
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


Runner = Callable[[SweepPlan, Values, int, Workshop], TrialRun]


def build_once(plan: SweepPlan, values: Values, index: int, workshop: Workshop) -> TrialRun:
    """Build one combination with its index-th seed as far as the plan says; the cache keeps what is shared."""
    base = [*plan.overrides, *overrides_for(values)]
    seed = load_pipeline(plan.pipeline, base).seed + index
    pipeline = load_pipeline(plan.pipeline, [*base, Override((LAST, "seed"), seed, f"seed {seed} of the sweep")])
    result = build(pipeline, load_profile(plan.profile, plan.overrides), workshop, until=plan.until)
    return _measured(result, seed)


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


def run_sweep(
    plan: SweepPlan, workshop: Workshop, where: str, out: Path, run: Runner = build_once
) -> Mapping[str, Any]:
    """Try what is not tried yet, and write sweep.json, sweep.md and pareto.svg to `out`; return sweep.json.

    Args:
        plan: What is tried.
        workshop: Where trials are built.
        where: A journal file, or the URL of a database that several hosts share.
        out: A folder.
        run: Makes one student.

    Raises:
        ConfigError: A combination is no pipeline, found before the first trial; or the study is another's.
        MissingToolError: Optuna is not installed.
    """
    _check(plan)
    study = open_study(where, plan.text(), sampler_for(plan.axes, plan.trials, seed=0))
    if again := revive(study):
        workshop.watcher.say(f"sweep: {len(again)} trial(s) that were cut off are tried again")
    # TPE must not draw again what it drew before the kill, nor two hosts the same.
    study.sampler = sampler_for(plan.axes, plan.trials, seed=len(study.get_trials(deepcopy=False)))

    def objective(trial: "Trial") -> float:
        sign(trial)
        return _try(trial, plan, workshop, run)

    while not is_finished(study, plan.axes, plan.trials):
        study.optimize(objective, n_trials=1, catch=(StageError,))
        write_report(_document(study, plan), out)
    document = _document(study, plan)
    write_report(document, out)
    return document


def _check(plan: SweepPlan) -> None:
    first = {one.key: one.choices[0] for one in plan.axes}
    for axis in plan.axes:
        for choice in axis.choices:
            load_pipeline(plan.pipeline, [*plan.overrides, *overrides_for({**first, axis.key: choice})])


def _try(trial: "Trial", plan: SweepPlan, workshop: Workshop, run: Runner) -> float:
    values = {one.key: trial.suggest_categorical(one.key, one.choices) for one in plan.axes}
    told = ", ".join(f"{key}={value}" for key, value in values.items())
    workshop.watcher.say(f"sweep: trial {trial.number}: {told}")
    try:
        runs = [run(plan, values, index, workshop) for index in range(plan.seeds)]
    except StageError as failure:
        trial.set_user_attr(ERROR, failure.message)
        workshop.watcher.say(f"sweep: trial {trial.number} failed: {failure.message}")
        raise
    trial.set_user_attr("runs", [asdict(one) for one in runs])
    return sum(one.top1_validation for one in runs) / len(runs)


def _document(study: "Study", plan: SweepPlan) -> dict[str, Any]:
    trials = study.get_trials(deepcopy=False)
    done = [(one.params, one.user_attrs["runs"]) for one in trials if one.state.name == "COMPLETE"]
    failed = [{"values": one.params, "error": one.user_attrs[ERROR]} for one in trials if ERROR in one.user_attrs]
    return {
        "schema": SCHEMA,
        "pipeline": plan.pipeline,
        "profile": plan.profile,
        "until": plan.until,
        "seeds": plan.seeds,
        "sampler": "grid" if is_grid(plan.axes, plan.trials) else "tpe",
        "combinations": grid_size(plan.axes),
        "axes": {one.key: list(one.choices) for one in plan.axes},
        "chosen_by": "top1_validation",
        "rows": group(done),
        "failed": failed,
    }
