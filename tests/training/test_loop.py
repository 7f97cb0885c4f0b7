from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mobilekd.errors import StageError
from mobilekd.preprocessing import normalize
from mobilekd.training import loop
from mobilekd.training.augmentation import random_flip, random_shift
from mobilekd.training.data import DatasetFacts, Images
from mobilekd.training.loop import Recipe, Run, epoch_order, fit, lr_factor, top1

FACTS = DatasetFacts("toy", ("a", "b"), (8, 8), (0.5,) * 3, (0.25,) * 3, "none", {}, "", "")
RECIPE = Recipe(
    epochs=3, batch_size=8, learning_rate=0.01, weight_decay=0.01, optimizer="adamw",
    shift_pixels=1, flip=True, threads=1, seed=7,
)  # fmt: skip


class Killed(BaseException):
    """Stands in for SIGKILL: nothing catches it."""


class Quiet:
    """Shows nothing; dies at a given step."""

    def __init__(self, die_at: int | None = None) -> None:
        self.steps, self.die_at = 0, die_at

    @contextmanager
    def bar(self, title, total):
        yield self

    def advance(self, steps=1, note=""):
        self.steps += steps
        if self.die_at is not None and self.steps >= self.die_at:
            raise Killed

    def say(self, line):
        pass


def images(count: int) -> Images:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    return Images(pixels, (pixels[:, :4].mean(axis=(1, 2, 3)) > 127).astype(np.int64), FACTS)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.2), nn.Flatten(), nn.Linear(144, 2)
    )


def run(folder: Path, model: nn.Module, progress: Quiet) -> Run:
    loss = lambda x, y: {"hard": nn.functional.cross_entropy(model(x), y)}  # noqa: E731
    return Run("toy", model, loss, images(40), images(16), folder / "checkpoint.pt", progress)


@pytest.mark.parametrize("die_at", [1, 4, 5, 9, 14])
@pytest.mark.parametrize(("optimizer", "ema"), [("adamw", 0.0), ("sgd", 0.0), ("sgd", 0.9)])
def test_a_killed_run_ends_with_the_weights_of_an_undisturbed_one(
    tmp_path, monkeypatch, die_at, optimizer, ema
) -> None:
    monkeypatch.setattr(loop, "_CHECKPOINT_EVERY_S", 0.0)
    recipe = replace(RECIPE, optimizer=optimizer, ema=ema)
    (tmp_path / "whole").mkdir()
    (tmp_path / "killed").mkdir()
    whole, killed, resumed = network(), network(), network()
    history = fit(run(tmp_path / "whole", whole, Quiet()), recipe)
    with pytest.raises(Killed):
        fit(run(tmp_path / "killed", killed, Quiet(die_at)), recipe)
    assert fit(run(tmp_path / "killed", resumed, Quiet()), recipe) == history
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_a_damaged_checkpoint_starts_again(tmp_path) -> None:
    whole, again = network(), network()
    history = fit(run(tmp_path, whole, Quiet()), RECIPE)
    (tmp_path / "checkpoint.pt").write_bytes(b"cut off")
    assert fit(run(tmp_path, again, Quiet()), RECIPE) == history


def test_a_checkpoint_of_an_older_version_starts_again(tmp_path) -> None:
    history = fit(run(tmp_path, network(), Quiet()), RECIPE)
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    torch.save({key: value for key, value in state.items() if key != "average"}, tmp_path / "checkpoint.pt")
    assert fit(run(tmp_path, network(), Quiet()), RECIPE) == history


def test_a_moving_average_lies_between_the_weights_that_it_saw(tmp_path) -> None:
    (tmp_path / "plain").mkdir()
    (tmp_path / "averaged").mkdir()
    start, plain, averaged = network(), network(), network()
    fit(run(tmp_path / "plain", plain, Quiet()), RECIPE)
    fit(run(tmp_path / "averaged", averaged, Quiet()), replace(RECIPE, ema=0.9))
    moved = [float((one[0].weight - start[0].weight).detach().norm()) for one in (plain, averaged)]
    assert 0 < moved[1] < moved[0]


def test_an_epoch_of_fewer_images_has_fewer_steps() -> None:
    assert replace(RECIPE, train_images=16).steps_per_epoch(40) == 2
    assert replace(RECIPE, train_images=100).steps_per_epoch(40) == 5


def test_training_learns(tmp_path) -> None:
    history = fit(run(tmp_path, network(), Quiet()), replace(RECIPE, epochs=30))
    assert history[-1]["loss"] < 0.85 * history[0]["loss"]


def test_a_loss_that_is_not_finite_names_epoch_and_batch(tmp_path) -> None:
    model = network()
    bad = replace(run(tmp_path, model, Quiet()), loss=lambda x, y: {"hard": model(x).sum() * float("nan")})
    with pytest.raises(StageError, match="not finite in epoch 1, batch 1"):
        fit(bad, RECIPE)


@given(st.integers(0, 200), st.integers(0, 2**31), st.integers(0, 500))
def test_an_epoch_visits_each_image_once(count: int, seed: int, epoch: int) -> None:
    assert sorted(epoch_order(count, seed, epoch)) == list(range(count))


@given(st.floats(0, 1))
def test_the_learning_rate_stays_between_zero_and_its_peak(progress: float) -> None:
    assert 0 <= lr_factor(progress) <= 1


@settings(deadline=None)
@given(st.integers(0, 3), st.integers(0, 100))
def test_a_shift_moves_an_image_whole(largest: int, seed: int) -> None:
    pixels = torch.arange(2 * 3 * 6 * 6, dtype=torch.float32).reshape(2, 3, 6, 6)
    moved = random_shift(pixels, largest, torch.Generator().manual_seed(seed))
    padded = nn.functional.pad(pixels, (largest,) * 4, mode="replicate") if largest else pixels
    windows = [
        padded[0, :, top : top + 6, left : left + 6]
        for top in range(2 * largest + 1)
        for left in range(2 * largest + 1)
    ]
    assert any(torch.equal(moved[0], window) for window in windows)


def test_flip_mirrors_left_to_right() -> None:
    pixels = torch.arange(64 * 4, dtype=torch.float32).reshape(64, 1, 1, 4)
    flipped = random_flip(pixels, torch.Generator().manual_seed(0))
    mirrored = (flipped == pixels.flip(3)).all(dim=(1, 2, 3)).sum().item()
    assert 16 < mirrored < 48
    assert ((flipped == pixels.flip(3)) | (flipped == pixels)).all()


def test_normalize_of_a_hand_worked_pixel() -> None:
    pixel = np.array([[[[255, 0, 51]]]], np.uint8)
    assert normalize(pixel, FACTS.mean, FACTS.std).reshape(-1).tolist() == pytest.approx([2.0, -2.0, -1.2])


def test_top1_counts_the_largest_logit() -> None:
    assert top1(np.array([[0, 1], [1, 0], [0, 1]], np.float32), np.array([1, 1, 1])) == pytest.approx(2 / 3)
