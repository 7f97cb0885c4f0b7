"""The loop against a training loop as PyTorch's documentation has it, on the same batches."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, kl_div, log_softmax, softmax

from mobilekd.method import Sizes
from mobilekd.methods.kd import Kd
from mobilekd.training.feeding import Feed
from mobilekd.training.loop import fit
from mobilekd.training.objective import Objective, TeacherNetwork
from mobilekd.training.parallel import Group
from mobilekd.training.recipe import Recipe
from mobilekd.training.run import Run
from mobilekd.training.soft_labels import SoftLabels
from mobilekd.training.strategy import Part, Strategy
from tests.training.nets import narrow, wide
from tests.training.toy import RECIPE, Quiet, distance, images

CPU = torch.device("cpu")
SHARE, TEMPERATURE = 0.9, 4.0
SGD = replace(RECIPE, optimizer="sgd", learning_rate=0.05, weight_decay=5e-4)


def networks() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(3)
    return narrow(2), wide(2).eval()


def trained_by_us(folder: Path, recipe: Recipe, labels: SoftLabels | None = None) -> nn.Module:
    student, teacher = networks()
    strategy = Strategy(1 - SHARE, (Part("kd", Kd(weight=SHARE, temperature=TEMPERATURE)),))
    taught = TeacherNetwork(teacher, soft_labels=labels)
    loss = Objective(student, (taught,), strategy, example=torch.zeros(2, 3, 8, 8), sizes=Sizes(40, 2), seed=0)
    fit(Run("toy", student, loss, images(40), images(16), folder / "checkpoint.pt", Quiet()), recipe)
    return student


def trained_plainly(recipe: Recipe) -> nn.Module:
    """Train with textbook lines: an unfused optimizer, Hinton's loss written out, the teacher asked in every step."""
    student, teacher = networks()
    decayed = [one for one in student.parameters() if one.ndim > 1]
    others = [one for one in student.parameters() if one.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": others}]
    optimizer = torch.optim.SGD(groups, lr=recipe.learning_rate, momentum=0.9, nesterov=True)
    feed = Feed(images(40), recipe, CPU, Group(CPU))
    student.train()
    for step in range(feed.steps):
        batch = feed.batch(step)
        with torch.no_grad():
            taught = teacher(batch.images)
        logits = student(batch.images)
        soft = kl_div(log_softmax(logits / TEMPERATURE, 1), softmax(taught / TEMPERATURE, 1), reduction="batchmean")
        loss = (1 - SHARE) * cross_entropy(logits, batch.labels) + SHARE * TEMPERATURE**2 * soft
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate_at(step / feed.steps, 40)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return student


def test_the_loop_ends_with_the_weights_of_a_plain_one(tmp_path: Path) -> None:
    assert distance(trained_by_us(tmp_path, SGD), trained_plainly(SGD)) < 1e-5


@pytest.mark.parametrize("schedule", ["step", "onecycle"])
def test_it_does_on_every_schedule_with_batches_prepared_by_a_thread(tmp_path: Path, schedule: str) -> None:
    recipe = replace(SGD, schedule=schedule)
    assert distance(trained_by_us(tmp_path, replace(recipe, workers=2)), trained_plainly(recipe)) < 1e-5


def test_remembered_logits_move_them_by_no_more_than_their_rounding(tmp_path: Path) -> None:
    recipe = replace(SGD, views=2)
    remembered = trained_by_us(tmp_path, recipe, SoftLabels(tmp_path / "labels", 40, 2))
    assert distance(remembered, trained_plainly(recipe)) < 1e-3
