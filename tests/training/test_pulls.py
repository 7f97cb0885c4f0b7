"""How hard each term of a loss pulls at the network's weights, as the history of a run tells it."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from mobilekd.training import loop
from mobilekd.training.loop import fit
from tests.training.toy import RECIPE, Noisy, Quiet, distance, network, run


def pulls(record):
    return {name: value for name, value in record.items() if name.startswith("pull/")}


@pytest.fixture
def often(monkeypatch):
    monkeypatch.setattr(loop, "_WEIGH_EVERY", 5)


def test_a_pull_is_the_norm_of_the_terms_gradient(tmp_path, often) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 2, bias=False))
    seen = []

    def loss(batch):
        seen.append(batch.images.flatten(1))
        logits = model(batch.images)
        return {"hard": logits.sum(), "far": 3 * logits[:, 0].sum()}

    history = fit(replace(run(tmp_path, model), loss=loss), RECIPE)

    norm = float(seen[-1].sum(0).norm())  # the gradient of both rows of weights, and three times that of one
    assert pulls(history[-1]) == pytest.approx({"pull/hard": 2**0.5 * norm, "pull/far": 3 * norm}, rel=1e-5)


def test_a_look_at_the_pulls_changes_nothing(tmp_path, monkeypatch) -> None:
    models, adapters = (network(), network()), (Noisy(), Noisy())
    adapters[1].load_state_dict(adapters[0].state_dict())
    fit(run(tmp_path / "seldom", models[0], Quiet(), adapters[0]), RECIPE)
    monkeypatch.setattr(loop, "_WEIGH_EVERY", 1)

    fit(run(tmp_path / "often", models[1], Quiet(), adapters[1]), RECIPE)

    assert (distance(*models), distance(*adapters)) == (0, 0)


@pytest.mark.parametrize(("every", "epochs"), [(100, []), (10, [2]), (5, [1, 2, 3])])
def test_terms_are_weighed_when_so_many_steps_are_full_and_an_epoch_ends(tmp_path, monkeypatch, every, epochs) -> None:
    monkeypatch.setattr(loop, "_WEIGH_EVERY", every)
    history = fit(run(tmp_path, network(), Quiet(), Noisy()), RECIPE)
    assert [record["epoch"] for record in history if "pull/far" in record] == epochs


def test_one_term_is_not_weighed(tmp_path, often) -> None:
    assert pulls(fit(run(tmp_path, network()), RECIPE)[-1]) == {}


def test_a_term_of_the_teacher_alone_pulls_not_at_all(tmp_path, often) -> None:
    model = network()
    loss = lambda batch: {"hard": model(batch.images).square().sum(), "theirs": batch.images.mean()}  # noqa: E731
    assert fit(replace(run(tmp_path, model), loss=loss), RECIPE)[-1]["pull/theirs"] == 0


def test_terms_are_not_weighed_where_memory_is_too_small_for_it(tmp_path, often) -> None:
    model, quiet = network(), Quiet()

    def loss(batch):
        if not model.training and torch.is_grad_enabled():
            raise torch.OutOfMemoryError
        return {"hard": model(batch.images).square().sum(), "far": model(batch.images).sum()}

    history = fit(replace(run(tmp_path, model, quiet), loss=loss), RECIPE)

    assert (len(history), pulls(history[-1])) == (3, {})
    assert quiet.lines == [f"toy: too little memory to weigh the terms after step {step}" for step in (5, 10, 15)]


def test_a_term_without_a_gradient_pulls_not_at_all(tmp_path, often) -> None:
    model = network()

    def loss(batch):
        return {"hard": model(batch.images).square().sum(), "apart": torch.ones((), requires_grad=True) * 2}

    history = fit(replace(run(tmp_path, model), loss=loss), RECIPE)

    assert history[-1]["pull/apart"] == 0
