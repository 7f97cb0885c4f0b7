"""Combinations that fail in a sweep: alone, or with all the others."""

import json

import pytest

from mobilekd.errors import ConfigError, MissingToolError, StageError
from mobilekd.sweep import run_sweep
from mobilekd.sweep_grid import axes_of
from mobilekd.sweep_trial import SweepPlan
from tests.sweeps import PLAN, Runs

pytest.importorskip("optuna")

UNFIT = ConfigError("gives no feature maps", hint="use kd", code="MKD-252")


def test_a_trial_that_fails_is_reported_and_does_not_stop_the_others(workshop, journal, out) -> None:
    document = run_sweep(PLAN, workshop, journal, out, Runs(failing=2.0))
    assert [one["error"] for one in document["failed"]] == ["the loss is not finite"] * 2
    assert [one["values"]["distill.temperature"] for one in document["rows"]] == [4.0, 4.0]


def test_an_unfit_combination_does_not_stop_the_others(workshop, journal, out) -> None:
    document = run_sweep(PLAN, workshop, journal, out, Runs(failing=2.0, failure=UNFIT))
    assert {(one["error"], one["code"]) for one in document["failed"]} == {("gives no feature maps", "MKD-252")}
    assert len(document["rows"]) == 2


def test_an_unfit_combination_is_not_tried_again_by_the_same_command(workshop, journal, out) -> None:
    first = run_sweep(PLAN, workshop, journal, out, Runs(failing=2.0, failure=UNFIT))
    again = Runs()
    assert run_sweep(PLAN, workshop, journal, out, again) == first
    assert again.asked == []


def test_tpe_does_not_build_an_unfit_combination_twice(workshop, journal, out) -> None:
    axes = axes_of([], ["resnet18"], ["kd"], ["distill.temperature=2.0,3.0,4.0"])
    runs = Runs(failing=2.0, failure=UNFIT)
    run_sweep(SweepPlan(axes, trials=2), workshop, journal, out, runs)
    asked = [one[2] for one in runs.asked if one[2] == 2.0]
    assert len(asked) <= 1


def test_a_sweep_in_which_all_failed_ends_with_the_first_cause(workshop, journal, out) -> None:
    plan = SweepPlan(axes_of([], ["resnet10t", "resnet18"], ["kd"], ["distill.temperature=2.0"]))
    with pytest.raises(ConfigError, match=r"all 2 combination.*gives no feature maps") as told:
        run_sweep(plan, workshop, journal, out, Runs(failing=2.0, failure=UNFIT))
    assert told.value.code == "MKD-252"
    assert len(json.loads((out / "sweep.json").read_text())["failed"]) == 2


@pytest.mark.parametrize("failure", [MissingToolError("no driver"), StageError("no space left", code="MKD-430")])
def test_what_every_combination_lacks_ends_the_sweep_and_is_tried_again(workshop, journal, out, failure) -> None:
    with pytest.raises(type(failure)):
        run_sweep(PLAN, workshop, journal, out, Runs(failing=2.0, failure=failure))
    assert len(run_sweep(PLAN, workshop, journal, out, Runs())["rows"]) == 4
