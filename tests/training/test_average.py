"""The moving average of a network."""

import functools
from dataclasses import replace

import torch

from mobilekd.training import loop
from mobilekd.training.loop import fit, top1
from tests.training.toy import RECIPE, network, run


def test_a_moving_average_lies_between_the_weights_that_it_saw(tmp_path) -> None:
    start, plain, averaged = network(), network(), network()
    fit(run(tmp_path / "plain", plain), RECIPE)
    fit(run(tmp_path / "averaged", averaged), replace(RECIPE, ema=0.9))
    moved = [float((one[0].weight - start[0].weight).detach().norm()) for one in (plain, averaged)]
    assert 0 < moved[1] < moved[0]


def test_a_slow_average_of_a_short_run_has_learnt_what_the_run_has(tmp_path) -> None:
    recipe = replace(RECIPE, epochs=20, learning_rate=0.02)  # 100 steps
    plain = fit(run(tmp_path / "plain", network()), recipe)
    averaged = fit(run(tmp_path / "averaged", network()), replace(recipe, ema=0.999))
    assert averaged[-1]["top1"] >= plain[-1]["top1"] - 1 / 16  # an image of the 16


def test_the_statistics_of_batchnorm_are_averaged_with_the_weights(tmp_path) -> None:
    averaged = network()
    task, seen = run(tmp_path, averaged), [averaged[1].running_mean.clone()]
    fit(
        replace(task, on_step=lambda step, terms: seen.append(averaged[1].running_mean.clone())),
        replace(RECIPE, ema=0.9),
    )
    kept = [min(0.9, (1 + step) / (10 + step)) for step in range(15)]
    wanted = functools.reduce(
        lambda value, pair: value.lerp(pair[0], 1 - pair[1]), zip(seen[1:], kept, strict=True), seen[0]
    )
    torch.testing.assert_close(averaged[1].running_mean, wanted)


def test_the_top1_of_the_last_epoch_is_that_of_the_averaged_network(tmp_path) -> None:
    averaged = network()
    task = run(tmp_path, averaged)
    history = fit(task, replace(RECIPE, ema=0.7, learning_rate=0.1))
    assert history[-1]["top1"] == top1(loop.predict(averaged, task.validation), task.validation.labels)
