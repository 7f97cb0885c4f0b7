"""Whole sweeps of small networks."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("optuna")

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
