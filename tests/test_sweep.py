"""A sweep: its space, what it remembers, and what it reports."""

import json
import signal
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from mobilekd import cli
from mobilekd.config import parse_override
from mobilekd.errors import ConfigError
from mobilekd.sweep import run_sweep
from mobilekd.sweep_grid import axes_of, overrides_for, points
from mobilekd.sweep_trial import SweepPlan
from tests.sweeps import AXES, PLAN, Methods, Runs

pytest.importorskip("optuna")


def test_every_point_of_a_grid_is_built_once_with_every_seed(workshop, journal, out) -> None:
    runs = Runs()
    document = run_sweep(PLAN, workshop, journal, out, runs)
    assert sorted(runs.asked) == sorted((*one.values(), seed) for one in points(AXES) for seed in (0, 1))
    assert (document["sampler"], document["combinations"], len(document["rows"])) == ("grid", 4, 4)


def test_rows_are_ranked_by_the_mean_of_validation_over_seeds(workshop, journal, out) -> None:
    best = run_sweep(PLAN, workshop, journal, out, Runs())["rows"][0]
    assert best["values"] == {"distill.network": "timm:resnet18", "distill.method": "kd", "distill.temperature": 4.0}
    assert best["top1_validation"] == pytest.approx(0.65)
    assert best["top1_validation_std"] == pytest.approx(0.02 / 2**0.5)


def test_the_same_command_builds_nothing_again(workshop, journal, out) -> None:
    first = run_sweep(PLAN, workshop, journal, out, Runs())
    again = Runs()
    assert run_sweep(PLAN, workshop, journal, out, again) == first
    assert again.asked == []


def test_a_sweep_that_was_interrupted_goes_on_where_it_was(workshop, journal, out) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_sweep(PLAN, workshop, journal, out, Runs(dying=5))
    rest = Runs()
    document = run_sweep(PLAN, workshop, journal, out, rest)
    assert (len(rest.asked), len(document["rows"])) == (4, 4)


KILLED = """
import os, signal, sys
from tests.sweeps import PLAN, Runs
from tests.toys import Silent
from mobilekd.cache import Cache
from mobilekd.pipeline import Workshop
from mobilekd.sweep import run_sweep
from pathlib import Path

class Dies(Runs):
    def student(self, *arguments):
        if len(self.asked) == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().student(*arguments)

here = Path(sys.argv[1])
run_sweep(PLAN, Workshop(Cache(here / "c"), here, Silent()), sys.argv[2], here / "sweep", Dies())
"""


def test_a_trial_whose_process_was_killed_is_tried_again(workshop, journal, out, tmp_path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path), journal], check=False, cwd=Path(__file__).parents[1]
    )
    assert done.returncode == -signal.SIGKILL
    rest = Runs()
    document = run_sweep(PLAN, workshop, journal, out, rest)
    assert (len(rest.asked), len(document["rows"])) == (6, 4)
    assert any("1 trial(s) that were cut off" in line for line in workshop.watcher.lines)


def test_a_method_without_a_temperature_is_built_once(workshop, journal, out) -> None:
    axes = axes_of([], [], ["sp", "kd"], ["distill.temperature=2.0,4.0"])
    plan = SweepPlan(axes, pipeline="quickstart", overrides=(parse_override("distill.soft_weight=0.0"),))
    document = run_sweep(plan, workshop, journal, out, runs := Methods())
    assert sorted(runs.asked) == [("kd", 2.0), ("kd", 4.0), ("sp",)]
    assert (document["combinations"], len(document["rows"])) == (3, 3)


def test_a_finished_sweep_with_a_method_without_a_temperature_builds_nothing_again(workshop, journal, out) -> None:
    axes = axes_of([], [], ["sp", "kd"], ["distill.temperature=2.0,4.0"])
    plan = SweepPlan(axes, overrides=(parse_override("distill.soft_weight=0.0"),))
    first = run_sweep(plan, workshop, journal, out, Methods())
    assert run_sweep(plan, workshop, journal, out, again := Methods()) == first
    assert again.asked == []


def test_a_baseline_is_another_plan() -> None:
    assert SweepPlan(AXES, baseline=True).text() != SweepPlan(AXES).text()


def test_fewer_trials_than_points_are_chosen_by_tpe(workshop, journal, out) -> None:
    document = run_sweep(SweepPlan(AXES, trials=3), workshop, journal, out, runs := Runs())
    assert (document["sampler"], len(runs.asked)) == ("tpe", 3)


def test_a_study_keeps_to_its_plan(workshop, journal, out) -> None:
    run_sweep(PLAN, workshop, journal, out, Runs())
    with pytest.raises(ConfigError, match="another sweep"):
        run_sweep(SweepPlan(AXES, seeds=3), workshop, journal, out, Runs())


def test_a_database_of_sqlalchemy_is_a_study_too(workshop, out, tmp_path) -> None:
    document = run_sweep(PLAN, workshop, f"sqlite:///{tmp_path}/study.db", out, Runs())
    assert len(document["rows"]) == 4


def test_the_table_and_the_plot_are_written(workshop, journal, out) -> None:
    document = run_sweep(PLAN, workshop, journal, out, Runs())
    assert json.loads((out / "sweep.json").read_text()) == document
    assert "| timm:resnet18 | kd | 4.0 | 65.00 ± 1.41 % |" in (out / "sweep.md").read_text()
    assert len(ET.parse(out / "pareto.svg").getroot().findall(".//{*}circle")) == 4


def test_methods_with_a_comma_are_one_student() -> None:
    (axis,) = axes_of([], [], ["kd,kd"], [])
    (override,) = overrides_for({axis.key: axis.choices[0]})
    assert override.value == ["kd", "kd"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "nothing to vary"),
        (["--method", "kb"], "there is no such method"),
        (["--set-choice", "distill.temperature"], "is not KEY=A,B"),
        (["--set-choice", "distill.heat=1,2"], "distill.heat"),
        (["--set-choice", "distill.temperature=2.0,-1.0"], "distill.temperature"),
        (["--method", "kd", "--set-choice", "distill.method=kd"], "given twice"),
        (["--method", "kd", "--until", "teacher"], "--until teacher"),
        (["--method", "kd", "--data", "/nonexistent/photos"], "/nonexistent/photos"),
        (["--method", "kd", "--profile", "nothing"], "nothing"),
        (["--method", "kd", "--study", "foo://bar"], "MKD-264"),
    ],
)
def test_a_wrong_word_ends_in_2_before_anything_is_built(words, told, tmp_path, capfd) -> None:
    assert cli.run(["sweep", "--out", str(tmp_path / "sweep"), *words]) == 2
    assert told in capfd.readouterr().err
    assert not (tmp_path / "sweep").exists()
