"""Methods that begin to count after the first step, in the real loop."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from mobilekd.method import Method, Sizes
from mobilekd.plugins import METHODS
from mobilekd.training.loop import fit
from mobilekd.training.objective import Objective, TeacherNetwork
from mobilekd.training.run import Run
from mobilekd.training.strategy import Part, Strategy
from tests.training.nets import narrow, wide
from tests.training.toy import RECIPE, Quiet, images


def distilled(folder: Path, method: Method, **changes: object) -> tuple[nn.Module, nn.Module | None]:
    """Return a student and the adapters after the toy's three epochs."""
    torch.manual_seed(0)
    student, teacher = narrow(2), wide(2)
    strategy = Strategy(1.0, (Part("tried", method),))
    example = torch.zeros(2, 3, 8, 8)
    loss = Objective(student, (TeacherNetwork(teacher),), strategy, example=example, sizes=Sizes(40, 2), seed=0)
    adapters = loss.adapters
    run = Run("toy", student, loss, images(40), images(16), folder / "checkpoint.pt", Quiet(), adapters=adapters)
    fit(run, replace(RECIPE, **changes))
    return student, adapters


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("name", METHODS.names())
def test_a_method_may_begin_in_the_middle_of_a_run(tmp_path: Path, name: str, optimizer: str) -> None:
    student, _ = distilled(tmp_path, METHODS.load(name)(start=0.5, ramp=0.2, weight=0.01), optimizer=optimizer)
    assert all(bool(one.isfinite().all()) for one in student.parameters())


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_adapters_of_a_method_that_never_begins_stay_as_they_were_made(tmp_path: Path, optimizer: str) -> None:
    fitnets = METHODS.load("fitnets")
    recipe = {"optimizer": optimizer, "weight_decay": 0.0}
    _, trained = distilled(tmp_path, fitnets(start=1.0), **recipe)
    _, made = distilled(tmp_path, fitnets(start=1.0), **recipe, epochs=0)
    assert [one.tolist() for one in trained.parameters()] == [one.tolist() for one in made.parameters()]
