"""A sweep: its space, what it remembers, and what it reports."""

import json
import os
import signal
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from mobilekd import cli
from mobilekd.config import parse_override
from mobilekd.errors import ConfigError, MissingToolError, StageError
from mobilekd.sweep import run_sweep
from mobilekd.sweep_grid import axes_of, overrides_for, points
from mobilekd.sweep_plot import pareto_svg
from mobilekd.sweep_report import cells
from mobilekd.sweep_rows import group, pareto_front
from mobilekd.sweep_trial import SweepPlan, TrialRun

pytest.importorskip("optuna")

AXES = axes_of([], ["resnet10t", "resnet18"], ["kd"], ["distill.temperature=2.0,4.0"])
PLAN = SweepPlan(AXES, seeds=2)


class Runs:
    """A build whose top-1 is known: hotter is better, the larger network too; it keeps what it was asked."""

    def __init__(self, failing: float = 0.0, dying: int = -1, failure: Exception | None = None) -> None:
        self.asked: list[tuple] = []
        self.failing, self.dying = failing, dying
        self.failure = failure or StageError("the loss is not finite")

    def check(self, plan, example, workshop) -> None:
        self.checked = example

    def prepare(self, plan, example, workshop) -> None:
        self.prepared = example

    def student(self, plan, combination, index, workshop) -> TrialRun:
        values = combination.values
        if len(self.asked) == self.dying:
            raise KeyboardInterrupt
        self.asked.append((*values.values(), index))
        hot, is_large = values["distill.temperature"], values["distill.network"] == "timm:resnet18"
        if hot == self.failing:
            raise self.failure
        size = 2000 if is_large else 1000
        return TrialRun(index, 0.5 + hot / 100 + is_large / 10 + index / 50, 0.4, size, size, "a byte a parameter", 1.0)


class Methods(Runs):
    """A build that takes whatever the methods read."""

    def student(self, plan, combination, index, workshop) -> TrialRun:
        self.asked.append(tuple(combination.values.values()))
        return TrialRun(index, 0.5, 0.4, 10, 10, "a byte a parameter", 1.0)


RUN = {"top1_validation": 0.9, "top1_test": 0.8, "parameters": 10, "bytes": 10, "bytes_of": "x", "seconds": 1.0}
RUN |= {"latency_of": ""}


@pytest.fixture
def journal(tmp_path: Path) -> str:
    return str(tmp_path / "study.journal")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "sweep"


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
from tests.test_sweep import PLAN, Runs
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


def test_a_trial_that_fails_is_reported_and_does_not_stop_the_others(workshop, journal, out) -> None:
    document = run_sweep(PLAN, workshop, journal, out, Runs(failing=2.0))
    assert [one["error"] for one in document["failed"]] == ["the loss is not finite"] * 2
    assert [one["values"]["distill.temperature"] for one in document["rows"]] == [4.0, 4.0]


UNFIT = ConfigError("gives no feature maps", hint="use kd", code="MKD-252")


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


def test_a_student_is_compared_with_the_same_seed_alone() -> None:
    gains = [(0.9, 0.7), (0.8, 0.7)]
    runs = [RUN | {"top1_test": test, "alone_top1_test": alone} for test, alone in gains]
    (row,) = group([({"a": 1}, runs)])
    assert row["over_alone"] == pytest.approx(0.15)
    assert row["over_alone_std"] == pytest.approx(0.1 / 2**0.5)
    assert "+15.00 ± 7.07 points" in cells(row, ["a"], baseline=True)


def test_a_student_that_is_worse_than_alone_is_a_finding() -> None:
    (row,) = group([({"a": 1}, [RUN | {"alone_top1_test": 0.81}])])
    assert [one["code"] for one in row["diagnoses"]] == ["MKD-807"]


def test_a_row_without_a_baseline_has_no_gain() -> None:
    (row,) = group([({"a": 1}, [RUN])])
    assert (row["over_alone"], row["diagnoses"]) == (None, [])


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


def test_a_point_that_another_beats_in_both_is_not_on_the_front() -> None:
    assert pareto_front([10, 20, 20, 5], [0.9, 0.95, 0.9, 0.8]) == [True, True, False, True]


def test_latency_gives_a_plot_of_its_own() -> None:
    run = {"top1_validation": 0.9, "top1_test": 0.8, "parameters": 10, "bytes": 10, "bytes_of": "x", "seconds": 1.0}
    rows = group([({"a": n}, [{**run, "latency_ms": n, "latency_of": "host"}]) for n in (1.0, 2.0)])
    assert [one["on_latency_front"] for one in rows] == [True, False]
    assert "validation top-1 against latency" in pareto_svg(rows)


def test_instructions_give_a_front_and_a_plot_of_their_own() -> None:
    run = {"top1_validation": 0.9, "top1_test": 0.8, "parameters": 10, "bytes": 10, "bytes_of": "x", "seconds": 1.0}
    place = {"latency_ms": None, "latency_of": "emulated cortex-a76"}
    rows = group([({"a": n}, [{**run, **place, "instructions": n}]) for n in (2e6, 1e6)])
    assert [(one["on_instruction_front"], one["on_latency_front"]) for one in rows] == [(False, False), (True, False)]
    assert pareto_svg(rows).count('class="title"') == 2
    assert "validation top-1 against instructions of one inference" in pareto_svg(rows)


def test_a_row_shows_instructions_where_there_is_no_time() -> None:
    run = {"top1_validation": 0.9, "top1_test": 0.8, "parameters": 10, "bytes": 10, "bytes_of": "x", "seconds": 1.0}
    counted = {"latency_ms": None, "latency_of": "emulated cortex-a76", "instructions": 2_450_105}
    (row,) = group([({"a": 1}, [run | counted])])
    assert "2.45 M instr." in cells(row, ["a"])


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


NETS = """
from torch import nn

def wide(num_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(768, 8), nn.ReLU(), nn.Linear(8, num_classes))

def unfit(num_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(192, num_classes))
"""
SMALL = ("data.image_size=16", "teacher.network=python:nets:wide", "teacher.epochs=1", "distill.epochs=1",
         "teacher.threads=1", "distill.threads=1")  # fmt: skip


def swept(folder: Path, *words: str) -> tuple[dict, str]:
    """Run a small sweep of two students, of whom one does not take the images; return what it prints."""
    (folder / "nets.py").write_text(NETS, encoding="utf-8")
    command = [sys.executable, "-m", "mobilekd", "sweep", "--json", "--cache", "cache", "--method", "kd", *words]
    command += [part for value in SMALL for part in ("--set", value)]
    path = os.pathsep.join((str(Path(__file__).parents[1]), str(folder)))
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": path}
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


@pytest.mark.slow
def test_a_real_sweep_leaves_a_student_that_does_not_take_the_images(tmp_path: Path) -> None:
    students = ("--student", "python:nets:unfit", "--student", "python:nets:wide")
    document, _ = swept(tmp_path, *students)
    again, said = swept(tmp_path, *students)
    assert [one["values"]["distill.network"] for one in document["rows"]] == ["python:nets:wide"]
    assert [one["code"] for one in document["failed"]] == ["MKD-250"]
    assert again == document
    assert "trial" not in said


@pytest.mark.slow
def test_a_real_sweep_trains_each_baseline_once(tmp_path: Path) -> None:
    words = ("--student", "python:nets:wide", "--set-choice", "distill.temperature=2.0,4.0")
    document, said = swept(tmp_path, *words, "--seeds", "2", "--baseline")
    alone = [[run["alone_top1_test"] for run in row["runs"]] for row in document["rows"]]
    assert alone[0] == alone[1]
    assert said.count("… alone: runs") == 2


@pytest.mark.slow
def test_a_real_sweep_shares_its_teacher(tmp_path: Path) -> None:
    small = ("data.image_size=16", "teacher.network=timm:resnet10t", "teacher.epochs=1", "distill.epochs=1",
             "distill.network=timm:mobilenetv4_conv_small_050", "teacher.threads=1", "distill.threads=1")  # fmt: skip
    words = [part for value in small for part in ("--set", value)]
    command = [sys.executable, "-m", "mobilekd", "sweep", "--json", "--cache", "cache", "--seeds", "2", *words]
    command += ["--set-choice", "distill.temperature=2.0,4.0"]
    root = str(Path(__file__).parents[1])
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": root}
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert [len(row["runs"]) for row in document["rows"]] == [2, 2]
    assert done.stderr.count("… teacher: runs") == 1
    assert (tmp_path / "sweep" / "pareto.svg").is_file()
