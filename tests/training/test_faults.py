"""Runs whose numbers are not finite: what is named, and what is kept."""

import itertools
import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from mobilekd.errors import StageError
from mobilekd.training import checkpoints, loop, stepping
from mobilekd.training.loop import fit
from tests.training.toy import RECIPE, Killed, Quiet, network, run


def test_a_loss_that_is_not_finite_names_epoch_and_batch(tmp_path) -> None:
    model = network()
    bad = replace(run(tmp_path, model), loss=lambda batch: {"hard": model(batch.images).sum() * float("nan")})
    with pytest.raises(StageError, match=r"not finite in epoch 1, batch 1 \(hard nan\); first of all the term hard"):
        fit(bad, RECIPE)


def test_a_fault_that_does_not_come_again_is_told_as_such(tmp_path) -> None:
    model, calls = network(), itertools.count()
    spoil = lambda batch: {"hard": model(batch.images).sum() * (math.nan if next(calls) == 0 else 1)}  # noqa: E731
    with pytest.raises(StageError, match="; when the batch was computed again, all was finite; there is no checkpoint"):
        fit(replace(run(tmp_path, model), loss=spoil), replace(RECIPE, learning_rate=1e-6))


class Logarithm(nn.Module):
    def forward(self, image):
        return image.log()


class Root(nn.Module):
    def forward(self, image):
        return (image * 0).abs().sqrt()  # finite, with an infinite slope


@pytest.mark.parametrize(
    ("layer", "named"),
    [(Logarithm(), r"the output of layer 1 \(Logarithm\)"), (Root(), r"the gradient of 0\.")],
    ids=["output", "gradient"],
)
def test_the_first_layer_that_is_not_finite_is_named(tmp_path, layer, named) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), layer, nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
    with pytest.raises(StageError, match=named):
        fit(run(tmp_path, model), RECIPE)


def test_a_diverged_run_keeps_its_last_good_checkpoint(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(loop, "_CHECKPOINT_EVERY_S", 0.0)
    model = network()
    task = run(tmp_path, model)
    spoil = lambda step, terms: model[5].weight.data.fill_(float("nan")) if step == 6 else None  # noqa: E731
    with pytest.raises(StageError, match=r"the parameter 5\.weight; the last good checkpoint, of step 6, is kept"):
        fit(replace(task, on_step=spoil), RECIPE)
    state = torch.load(task.checkpoint, weights_only=True)["network"]
    assert all(torch.isfinite(one).all() for one in state.values())


def test_a_short_run_has_the_checkpoint_of_its_last_whole_epoch(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(loop, "_EPOCH_CHECKPOINT_EVERY_S", 0.0)
    monkeypatch.setattr(checkpoints, "_TIMES_THE_LAST", 0.0)
    with pytest.raises(Killed):
        fit(run(tmp_path, network(), Quiet(14)), RECIPE)
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 10


def test_a_late_look_names_the_first_bad_batch_and_saves_nothing_bad(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(loop, "_CHECKPOINT_EVERY_S", 0.0)
    monkeypatch.setitem(stepping._LOOKS_EVERY, "cpu", 50)  # as on a GPU
    model = network()
    task = run(tmp_path, model)
    spoilt = replace(RECIPE, learning_rate=1e38, optimizer="sgd", warmup=0.0)
    with pytest.raises(StageError, match=r"not finite in epoch 1, batch [12] "):
        fit(task, spoilt)
    saved = torch.load(task.checkpoint, weights_only=True)["network"] if task.checkpoint.exists() else {}
    assert all(torch.isfinite(one).all() for one in saved.values())
