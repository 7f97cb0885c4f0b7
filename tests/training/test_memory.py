from dataclasses import replace

import pytest
import torch
from torch import nn

from mobilekd.errors import StageError
from mobilekd.training import loop
from mobilekd.training.loop import fit
from tests.training.toy import RECIPE, Killed, Quiet, distance, network, plain_network, run

ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory"),
    RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
]


class Small(nn.Module):
    """Passes on images in training; out of memory for more than `most` of them."""

    def __init__(self, most: int, error: Exception) -> None:
        super().__init__()
        self.most, self.error = most, error

    def forward(self, image):
        if len(image) > self.most:
            raise self.error
        return image


def small(model: nn.Sequential, most: int, error: Exception = ERRORS[0]) -> nn.Sequential:
    return nn.Sequential(*model[:-1], Small(most, error), model[-1])  # the last layer: BatchNorm has moved by then


@pytest.mark.parametrize("error", ERRORS, ids=["cuda", "cpu"])
@pytest.mark.parametrize(("most", "parts"), [(4, 2), (3, 4), (1, 8)])
def test_a_batch_that_does_not_fit_is_split_and_trains_the_same(tmp_path, error, most, parts) -> None:
    recipe = replace(RECIPE, optimizer="sgd", learning_rate=0.1)
    whole, split, quiet = plain_network(), small(plain_network(), most, error), Quiet()
    fit(run(tmp_path / "whole", whole), recipe)
    fit(run(tmp_path / "split", split, quiet), recipe)
    assert distance(whole, split) < 1e-5
    assert f"going on with {parts} micro-batches" in quiet.lines[-1]


def test_a_step_that_ran_out_of_memory_leaves_no_trace(tmp_path) -> None:
    after, planned = small(network(), 4), small(network(), 4)
    fit(run(tmp_path / "after", after), RECIPE)
    fit(run(tmp_path / "planned", planned), replace(RECIPE, accumulation=2))
    assert distance(after, planned) == 0


class Bank(nn.Module):
    """An adapter that moves the places of the batch's images, by momentum, in more values than are copied whole."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("bank", torch.ones(40, 2000))

    def forward(self, rows, logits):
        self.bank[rows] = 0.5 * self.bank[rows] + logits.detach().mean(1, keepdim=True)
        return self.bank[rows].mean() + logits.mean()


def banked(folder, model, recipe) -> Bank:
    bank = Bank()
    body = model[:-1]

    def loss(batch):
        logits = body[:-1](batch.images)
        far = bank(batch.rows, logits)
        return {"hard": nn.functional.cross_entropy(model[-1](body[-1](logits)), batch.labels), "far": far}

    fit(replace(run(folder, model, adapters=bank), loss=loss), recipe)
    return bank


def test_a_memory_bank_moves_once_in_a_step_that_ran_out_of_memory(tmp_path) -> None:
    after = banked(tmp_path / "after", small(network(), 4), RECIPE)
    planned = banked(tmp_path / "planned", small(network(), 4), replace(RECIPE, accumulation=2))
    assert distance(after, planned) == 0


def test_a_resumed_run_keeps_its_micro_batches(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(loop, "_CHECKPOINT_EVERY_S", 0.0)
    whole, quiet = small(network(), 4), Quiet()
    history = fit(run(tmp_path / "whole", whole), RECIPE)
    with pytest.raises(Killed):
        fit(run(tmp_path / "killed", small(network(), 4), Quiet(7)), RECIPE)
    resumed = network()  # has memory enough
    resumed = small(resumed, 100)
    assert fit(run(tmp_path / "killed", resumed, quiet), RECIPE) == history
    assert distance(whole, resumed) == 0


def test_a_single_image_that_does_not_fit_is_an_error_with_a_hint(tmp_path) -> None:
    with pytest.raises(StageError, match="one image at a time does not fit") as caught:
        fit(run(tmp_path, small(plain_network(), 0)), RECIPE)
    assert "precision" in caught.value.hint


def test_another_error_is_not_taken_for_it(tmp_path) -> None:
    with pytest.raises(RuntimeError, match="shape"):
        fit(run(tmp_path, small(plain_network(), 4, RuntimeError("shape"))), RECIPE)
