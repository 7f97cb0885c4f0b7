"""What TensorBoard would read back from a run."""

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import pytest

from mobilekd.training.tensorboard import tensorboard_watch
from tests.toys import Silent


@dataclass(frozen=True)
class Pace:
    images_per_s: float = 120.0
    peak_bytes: int = 1000
    seconds: float = 2.0


RECORD = {"epoch": 3.0, "lr": 1e-3, "loss": 1.5, "hard": 0.5, "soft": 1.0, "top1": 0.75, "pull/soft": 0.25}


def test_a_run_leaves_every_scalar_of_an_epoch(tmp_path: Path) -> None:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    watch = tensorboard_watch(tmp_path, "distill", Silent(), teacher_top1=0.875)
    watch.epoch(RECORD, Pace())
    watch.close()
    events = reader.EventAccumulator(str(tmp_path / "distill")).Reload()
    found = {
        tag: [(one.step, pytest.approx(one.value)) for one in events.Scalars(tag)] for tag in events.Tags()["scalars"]
    }
    assert found == {
        "top1/validation": [(3, 0.75)],
        "top1/teacher": [(3, 0.875)],
        "loss/hard": [(3, 0.5)],
        "loss/soft": [(3, 1.0)],
        "pull/soft": [(3, 0.25)],
        "loss/total": [(3, 1.5)],
        "learning_rate": [(3, 1e-3)],
        "speed/images_per_s": [(3, 120.0)],
        "speed/seconds_an_epoch": [(3, 2.0)],
        "memory/peak_bytes": [(3, 1000.0)],
    }  # fmt: skip


def test_nobody_asked_and_nothing_is_said(watcher: Silent) -> None:
    assert tensorboard_watch(None, "distill", watcher) is None
    assert watcher.lines == []


def test_a_missing_package_is_told_in_one_line(
    watcher: Silent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert tensorboard_watch(tmp_path, "distill", watcher) is None
    (line,) = watcher.lines
    assert "mobilekd[watch]" in line
