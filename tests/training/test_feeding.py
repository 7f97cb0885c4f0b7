"""Threads that prepare the next batches."""

import threading
from dataclasses import replace

import torch

from mobilekd.training.feeding import Feed
from mobilekd.training.loop import fit
from mobilekd.training.parallel import Group
from mobilekd.training.views import Views
from tests.training.toy import RECIPE, distance, images, network, run


def test_batches_from_a_thread_are_those_of_the_loop_itself(tmp_path) -> None:
    whole, fed = network(), network()
    fit(run(tmp_path / "whole", whole), RECIPE)
    fit(run(tmp_path / "fed", fed), replace(RECIPE, workers=3))
    assert distance(whole, fed) == 0


def test_batches_are_prepared_by_as_many_threads_as_there_are_workers(monkeypatch) -> None:
    together = threading.Barrier(3)
    monkeypatch.setattr(Views, "batch", lambda *_: together.wait(30))  # each waits for two others
    feed = Feed(images(40), replace(RECIPE, workers=3), torch.device("cpu"), Group(torch.device("cpu")))
    assert sorted(feed.batch(step) for step in range(3)) == [0, 1, 2]
    together.abort()
    feed.close()
