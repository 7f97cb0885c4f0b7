"""How long a step of quantization-aware training takes, as a ratio to the float step on the same batch.

    python -m benchmarks.qat_step [--network NAME] [--batch 128] [--size 32] [--threads 1] [--rounds 15]

The variants take turns within one run, so that a machine whose speed drifts does not favour one. Each ratio is the
median over the rounds of (step of the variant / step of the float network in the same round).
"""

import argparse
import copy
import statistics
import sys
import time
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mobilekd.quantization import qat
from mobilekd.quantization.post_training import PostTraining
from mobilekd.training import networks


def main(arguments: Sequence[str]) -> int:
    """Print one line a variant: median step in milliseconds, ratio to the float step, images a second."""
    parser = argparse.ArgumentParser(prog="benchmarks.qat_step")
    parser.add_argument("--network", default="python:benchmarks.cifar_resnet:resnet20")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args(arguments)
    torch.manual_seed(0)
    torch.set_num_threads(options.threads)
    images = torch.randn(options.batch, 3, options.size, options.size).contiguous(memory_format=torch.channels_last)
    labels = torch.arange(options.batch) % 10
    steps = {name: Step(network, images, labels) for name, network in _variants(options.network, images).items()}
    seconds = {name: [] for name in steps}
    for round_number in range(options.rounds + 2):
        for name, step in steps.items():
            taken = step.run()
            if round_number >= 2:  # the first two warm caches and allocators up
                seconds[name].append(taken)
    base = seconds["float, BatchNorm training"]
    print(f"{options.network}, batch {options.batch}, {options.size} px, {options.threads} thread(s)")
    for name, found in seconds.items():
        median = statistics.median(found)
        ratio = statistics.median(one / other for one, other in zip(found, base, strict=True))
        print(f"{name:28s} {median * 1e3:8.1f} ms   {ratio:5.2f} x   {options.batch / median:7.0f} images/s")
    return 0


class Step:
    """One training step of a network, with its optimizer."""

    def __init__(self, network: nn.Module, images: Tensor, labels: Tensor) -> None:
        self._network, self._images, self._labels = network, images, labels
        trained = [one for one in network.parameters() if one.requires_grad]
        self._optimizer = torch.optim.SGD(trained, lr=1e-5, momentum=0.9, nesterov=True)

    def run(self) -> float:
        """Return the seconds of one step: forward, loss, backward, update."""
        started = time.perf_counter()
        loss = cross_entropy(self._network(self._images), self._labels)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self._optimizer.step()
        return time.perf_counter() - started


def _variants(name: str, images: Tensor) -> dict[str, nn.Module]:
    network = networks.channels_last(networks.build(name, 10))
    recipe = PostTraining()
    lowered = recipe.lowered(network, images[:2])
    fixed = recipe.calibrated(lowered, [images])
    learned = copy.deepcopy(fixed)
    qat.learn_scales(learned)
    unrounded = copy.deepcopy(fixed)
    for part in unrounded.modules():
        if hasattr(part, "disable_fake_quant"):
            part.disable_fake_quant()
    return {
        "float, BatchNorm training": network.train(),
        "float, BatchNorm folded": lowered,
        "QAT graph, rounding off": unrounded,
        "QAT, fixed scales": fixed,
        "QAT, learned scales (LSQ)": learned,
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
