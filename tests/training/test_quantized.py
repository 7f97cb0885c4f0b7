"""A graph that trains with its own rounding goes through the same loop."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from mobilekd.quantization import qat
from mobilekd.quantization.lowering import lower
from mobilekd.quantization.scheme import Scheme
from mobilekd.training import loop
from mobilekd.training.loop import fit
from tests.training.toy import RECIPE, Killed, Quiet, distance, images, run


def prepared_graph():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2)
    ).eval()
    pixels = torch.from_numpy(images(16).normalized(slice(0, 16)))
    prepared = qat.prepare(lower(network, pixels[:2]), Scheme())
    qat.calibrate(prepared, [pixels])
    qat.learn_scales(prepared)
    return prepared


def test_a_killed_quantized_run_ends_with_the_weights_of_an_undisturbed_one(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(loop, "_CHECKPOINT_EVERY_S", 0.0)
    recipe = replace(RECIPE, device="cpu", optimizer="sgd", ema=0.5)
    whole, killed, resumed = prepared_graph(), prepared_graph(), prepared_graph()
    history = fit(replace(run(tmp_path / "whole", whole), in_train_mode=False), recipe)
    with pytest.raises(Killed):
        fit(replace(run(tmp_path / "killed", killed, Quiet(8)), in_train_mode=False), recipe)
    assert fit(replace(run(tmp_path / "killed", resumed), in_train_mode=False), recipe) == history
    assert distance(whole, resumed) == 0
    assert any(
        not torch.equal(old, new)
        for old, new in zip(qat.trained_scales(prepared_graph()), qat.trained_scales(whole), strict=True)
    )
