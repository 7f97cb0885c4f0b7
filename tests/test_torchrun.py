"""`mobilekd train` under torchrun: process 0 builds, process 1 trains with it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mobilekd.cache import Cache

ROOT = Path(__file__).parents[1]
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1", "--nproc-per-node", "2")
OPTIONS = (  # two epochs of 64 images
    *("train", "--pipeline", "quickstart", "--epochs", "2", "--json"),
    *("--set", "teacher.epochs=1", "--set", "teacher.train_images=64", "--set", "teacher.threads=1"),
    *("--set", "distill.train_images=64", "--set", "distill.batch_size=32", "--set", "distill.threads=1"),
    *("--set", "distill.views=2"),
)


def mobilekd(cache: Path, *options: str, launcher: tuple[str, ...] = ()) -> "subprocess.CompletedProcess[str]":
    argv = [sys.executable, *launcher, "-m", "mobilekd", *options, "--cache", str(cache)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "GLOO_SOCKET_IFNAME": "lo"}
    return subprocess.run(argv, cwd=ROOT, env=environment, check=False, capture_output=True, text=True, timeout=900)


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> "tuple[Path, subprocess.CompletedProcess[str]]":
    cache = tmp_path_factory.mktemp("pair")
    return cache, mobilekd(cache, *OPTIONS, launcher=TORCHRUN)


def test_a_pair_trains_and_tells_one_result(pair) -> None:
    cache, done = pair
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)  # one document: process 1 prints nothing
    assert [one["role"] for one in result["networks"]] == ["teacher", "student distilled"]
    assert "runs in 2 processes" in done.stderr
    assert len(Cache(cache).entries("distill")) == 1
    assert list((cache / "scratch").iterdir()) == []


def test_one_process_reuses_what_the_pair_trained(pair) -> None:
    cache, done = pair
    alone = mobilekd(cache, *OPTIONS)
    assert alone.returncode == 0, alone.stderr
    first, again = json.loads(done.stdout), json.loads(alone.stdout)
    assert [one["cached"] for one in again["networks"]] == [True, True]
    assert [one["top1_test"] for one in again["networks"]] == [one["top1_test"] for one in first["networks"]]


def test_a_pair_with_everything_in_the_cache_ends(pair) -> None:
    cache, _ = pair
    again = mobilekd(cache, *OPTIONS, launcher=TORCHRUN)
    assert again.returncode == 0, again.stderr
    assert all(one["cached"] for one in json.loads(again.stdout)["networks"])


def test_a_training_that_fails_ends_the_pair_with_the_error_of_process_0(tmp_path) -> None:
    options = ("--set", "teacher.learning_rate=1e30")
    failed = mobilekd(tmp_path, *OPTIONS, *options, launcher=TORCHRUN)
    assert failed.returncode != 0
    assert "not finite" in failed.stderr
    assert "teacher" in failed.stderr
    assert Cache(tmp_path).entries("teacher") == []
