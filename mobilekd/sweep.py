"""Many distillations, ranked: every combination of a grid, each with several seeds, remembered across kills."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobilekd.artifacts import canonical_json
from mobilekd.errors import ConfigError, MobilekdError, OverBudgetError, StageError, VerificationError
from mobilekd.pipeline import Workshop
from mobilekd.study import reaching
from mobilekd.sweep_report import SCHEMA, write_report
from mobilekd.sweep_rows import group
from mobilekd.sweep_space import Combination, Space
from mobilekd.sweep_store import (
    ERROR,
    FAILURE,
    VALUES,
    is_finished,
    is_grid,
    open_study,
    revive,
    sampler_for,
    sign,
)
from mobilekd.sweep_trial import Builder, Builds, SweepPlan

if TYPE_CHECKING:
    from optuna import Study, Trial

_OWN = (ConfigError, StageError, OverBudgetError, VerificationError)
"""How a combination fails by itself. A missing tool, a lost device or store and a full disk would fail every one."""

_FULL_DISK = "MKD-430"
_KINDS = {one.exit_code: one for one in _OWN}


def run_sweep(
    plan: SweepPlan, workshop: Workshop, where: str, out: Path, builder: Builder | None = None
) -> Mapping[str, Any]:
    """Try what is not tried yet, and write sweep.json, sweep.md and pareto.svg to `out`; return sweep.json.

    Args:
        plan: What is tried.
        workshop: Where trials are built.
        where: A journal file, or the URL of a database that several hosts share.
        out: A folder.
        builder: Makes students; `Builds` without one.

    Raises:
        ConfigError: A value can't be taken, found before the first trial; or the study is another's, or out of reach.
        MissingToolError: Optuna or a tool is not installed.
        MobilekdError: What all combinations share could not be made; or all of them failed: of the kind of the first.
    """
    space = Space(plan.pipeline, plan.overrides, plan.axes)
    example, combinations = space.check(), list(space.combinations())
    trials = None if plan.trials is None or plan.trials >= len(combinations) else plan.trials
    builder = builder or Builds()
    builder.check(plan, example, workshop)
    study = open_study(where, plan.text(), sampler_for(plan.axes, trials, seed=0))
    for line in dict.fromkeys(one.left_out for one in combinations if one.left_out):
        workshop.watcher.say(f"sweep: {line}")
    with reaching(where):
        _try_all(study, _Sweep(plan, space, len(combinations), trials, workshop, builder), example, out)
    document = _document(study, plan, trials, len(combinations))
    write_report(document, out)
    if document["failed"] and not document["rows"] and not _is_under_way(study):
        raise _all_failed(study, len(document["failed"]))
    return document


@dataclass(frozen=True, slots=True)
class _Sweep:
    """A sweep under way: `trials` is None for the whole grid, `size` is the number of combinations."""

    plan: SweepPlan
    space: Space
    size: int
    trials: int | None
    workshop: Workshop
    builder: Builder


def _try_all(study: "Study", sweep: _Sweep, example: Combination, out: Path) -> None:
    plan, trials, workshop = sweep.plan, sweep.trials, sweep.workshop
    if again := revive(study):
        workshop.watcher.say(f"sweep: {len(again)} trial(s) that were cut off are tried again")
    # TPE must not draw again what it drew before the kill, nor two hosts the same.
    study.sampler = sampler_for(plan.axes, trials, seed=len(study.get_trials(deepcopy=False)))
    if is_finished(study, plan.axes, trials):
        return
    sweep.builder.prepare(plan, example, workshop)
    while not is_finished(study, plan.axes, trials):
        try:
            study.optimize(lambda trial: _try(trial, sweep), n_trials=1)
        except _OWN as failure:
            if failure.code == _FULL_DISK:
                raise
        write_report(_document(study, plan, trials, sweep.size), out)


def _try(trial: "Trial", sweep: _Sweep) -> float:
    from optuna import TrialPruned

    sign(trial)
    plan, say = sweep.plan, sweep.workshop.watcher.say
    combination = sweep.space.at({one.key: trial.suggest_categorical(one.key, one.choices) for one in plan.axes})
    trial.set_user_attr(VALUES, dict(combination.values))
    if sweep.trials is None and not combination.is_first:
        raise TrialPruned  # the same student as at another point, which the grid has too
    say(f"sweep: trial {trial.number}: {', '.join(f'{key}={value}' for key, value in combination.values.items())}")
    try:
        if known := _failure_before(trial, combination):
            raise known
        runs = [sweep.builder.student(plan, combination, index, sweep.workshop) for index in range(plan.seeds)]
    except _OWN as failure:
        if failure.code != _FULL_DISK:
            trial.set_user_attr(FAILURE, [failure.exit_code, failure.code, failure.hint])
            trial.set_user_attr(ERROR, failure.message)
            say(f"sweep: trial {trial.number} failed, the others go on: {failure.message} [{failure.code}]")
        raise
    trial.set_user_attr("runs", [asdict(one) for one in runs])
    return sum(one.top1_validation for one in runs) / len(runs)


def _failure_before(trial: "Trial", combination: Combination) -> MobilekdError | None:
    """Return how this combination failed in another trial of the study: TPE may draw it again."""
    known = (one.user_attrs for one in trial.study.get_trials(deepcopy=False) if ERROR in one.user_attrs)
    return next((_recalled(one) for one in known if one.get(VALUES) == combination.values), None)


def _recalled(attributes: Mapping[str, Any]) -> MobilekdError:
    exit_code, code, hint = attributes.get(FAILURE, (StageError.exit_code, "", ""))
    return _KINDS[exit_code](attributes[ERROR], hint=hint, code=code)


def _all_failed(study: "Study", count: int) -> MobilekdError:
    """Return the first failure, told as that of all."""
    trials = study.get_trials(deepcopy=False)
    first = _recalled(next(one.user_attrs for one in trials if ERROR in one.user_attrs))
    told = f"all {count} combination(s) that were tried failed; the first: {first.message}"
    hint = f"{first.hint}; then choose another --out: this study does not try them again".removeprefix("; ")
    return type(first)(told, hint=hint, code=first.code)


def _is_under_way(study: "Study") -> bool:
    """Return whether another process is trying a combination."""
    return any(one.state.name == "RUNNING" for one in study.get_trials(deepcopy=False))


def _document(study: "Study", plan: SweepPlan, trials: int | None, combinations: int) -> dict[str, Any]:
    known = [(one, one.user_attrs.get(VALUES, one.params)) for one in study.get_trials(deepcopy=False)]
    done = [(values, one.user_attrs["runs"]) for one, values in known if one.state.name == "COMPLETE"]
    failed = {canonical_json(values): (one.user_attrs, values) for one, values in known if ERROR in one.user_attrs}
    return {
        "schema": SCHEMA,
        "pipeline": plan.pipeline,
        "profile": plan.profile,
        "until": plan.until,
        "seeds": plan.seeds,
        "baseline": plan.baseline,
        "sampler": "grid" if is_grid(plan.axes, trials) else "tpe",
        "combinations": combinations,
        "axes": {one.key: list(one.choices) for one in plan.axes},
        "chosen_by": "top1_validation",
        "rows": group(done),
        "failed": [
            {"values": values, "error": told[ERROR], "code": _recalled(told).code} for told, values in failed.values()
        ],
    }
