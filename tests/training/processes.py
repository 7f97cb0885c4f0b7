"""Trains the toy in a process of its own: python -m tests.training.processes FOLDER KIND STEPS [KILL_AT]."""

import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from mobilekd.training import loop
from tests.training import toy


def batchnorm() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))


def main() -> None:
    folder, kind, epochs, kill_at = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int((*sys.argv, "-1")[4])
    loop._CHECKPOINT_EVERY_S = 0.0
    model = {"plain": toy.plain_network, "norm": toy.network, "batchnorm": batchnorm}[kind]()
    losses: list[float] = []

    def on_step(step, terms):
        if step == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        losses.append(sum(terms.values()))

    recipe = replace(toy.RECIPE, epochs=epochs, optimizer="sgd", learning_rate=0.05, ema=0.9, device="cpu")
    history = loop.fit(replace(toy.run(folder, model), on_step=on_step), recipe)
    rank = os.environ.get("RANK", "0")
    torch.save(model.state_dict(), folder / f"weights{rank}.pt")
    (folder / f"told{rank}.json").write_text(json.dumps([losses, history]))


if __name__ == "__main__":
    main()
