"""Whole runs in processes of their own: killed, and several at once under torchrun."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
ALONE = (sys.executable, "-m")
PAIR = (
    *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
    *("--local-addr", "127.0.0.1", "--nproc-per-node", "2", "--module"),
)


def train(folder: Path, kind: str, epochs: int, *more: str, command: tuple[str, ...] = ALONE) -> int:
    folder.mkdir(exist_ok=True)
    argv = [*command, "tests.training.processes", str(folder), kind, str(epochs), *more]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run(argv, cwd=ROOT, env=environment, check=False, capture_output=True, text=True, timeout=600)
    print(done.stderr)  # pytest shows it where a test fails
    return done.returncode


def weights(folder: Path, rank: int = 0) -> dict[str, torch.Tensor]:
    return torch.load(folder / f"weights{rank}.pt", weights_only=True)


def losses(folder: Path) -> list[float]:
    return json.loads((folder / "told0.json").read_text())[0]


def test_a_run_that_is_killed_with_minus_9_in_an_epoch_ends_with_the_same_weights(tmp_path) -> None:
    assert train(tmp_path / "whole", "norm", 3) == 0
    assert train(tmp_path / "killed", "norm", 3, "8") == -signal.SIGKILL
    assert train(tmp_path / "killed", "norm", 3) == 0
    assert len(losses(tmp_path / "killed")) == 15 - 8  # it went on and did not start again
    whole, resumed = weights(tmp_path / "whole"), weights(tmp_path / "killed")
    assert [name for name, value in whole.items() if not torch.equal(value, resumed[name])] == []


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pairs")
    codes = [
        train(folder / f"{kind}{name}", kind, 10, command=command)
        for kind in ("plain", "norm")
        for name, command in (("alone", ALONE), ("pair", PAIR))
    ]
    assert codes == [0, 0, 0, 0]
    return folder


def test_two_processes_have_the_loss_of_one(pairs) -> None:
    assert losses(pairs / "plainpair") == pytest.approx(losses(pairs / "plainalone"), rel=1e-4)


@pytest.mark.parametrize("kind", ["plain", "norm"])
def test_two_processes_end_with_the_same_weights(pairs, kind) -> None:
    first, second = weights(pairs / f"{kind}pair", 0), weights(pairs / f"{kind}pair", 1)
    assert [name for name, value in first.items() if not torch.equal(value, second[name])] == []


def test_a_killed_pair_ends_with_the_weights_of_an_undisturbed_one(pairs, tmp_path) -> None:
    assert train(tmp_path, "norm", 10, "23", command=PAIR) != 0
    assert train(tmp_path, "norm", 10, command=PAIR) == 0
    assert len(losses(tmp_path)) == 50 - 23
    whole, resumed = weights(pairs / "normpair"), weights(tmp_path)
    assert [name for name, value in whole.items() if not torch.equal(value, resumed[name])] == []
