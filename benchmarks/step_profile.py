"""Where a training step on the CPU spends its time, and what torch.compile can take away of it.

    python -m benchmarks.step_profile [--threads 1] [--steps 6] [--batch 128]

ResNet-20 forward and backward with SGD, and the ResNet-56 teacher forward, each eager and compiled, in turn in one
process; CPU seconds of the process, the median of the steps. Convolutions are library calls in both: their share is the
part that a compiler can't fuse away.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.profiler import ProfilerActivity, profile

from benchmarks.cifar_resnet import resnet20, resnet56
from mobilekd.training.frozen import folded
from mobilekd.training.networks import channels_last

Step = Callable[[], object]

_CLASSES = 10


def main(arguments: Sequence[str]) -> int:
    """Measure and print one line a way."""
    parser = argparse.ArgumentParser(prog="benchmarks.step_profile")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--batch", type=int, default=128)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    images = torch.randn(options.batch, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    ways: dict[str, Step] = {}
    for name, compiled in (("eager", False), ("compiled", True)):
        ways[f"student {name}"] = _student(images, compiled=compiled)
        ways[f"teacher {name}"] = _teacher(images, compiled=compiled)
    for step in ways.values():  # compilation, memory
        step(), step()
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(options.steps):
        for name, step in ways.items():
            began = time.process_time()
            step()
            seconds[name].append(time.process_time() - began)
    for name, step in ways.items():
        taken = statistics.median(seconds[name])
        spread = f"{min(seconds[name]):.3f} to {max(seconds[name]):.3f}"
        print(f"{name:17} {taken:.3f} CPU s a step ({spread}), convolutions {_convolution_share(step):.0%}")
    return 0


def _student(images: torch.Tensor, *, compiled: bool) -> Step:
    torch.manual_seed(0)
    network = channels_last(resnet20(_CLASSES).train())
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, nesterov=True, fused=True)
    labels = torch.randint(0, _CLASSES, (len(images),))
    run = _run(network, compiled=compiled)

    def step() -> None:
        optimizer.zero_grad()
        cross_entropy(run(images), labels).backward()
        optimizer.step()

    return step


def _teacher(images: torch.Tensor, *, compiled: bool) -> Step:
    run = _run(folded(channels_last(resnet56(_CLASSES).eval()), images[:2]), compiled=compiled)

    def step() -> None:
        with torch.no_grad():
            run(images)

    return step


def _run(network: nn.Module, *, compiled: bool) -> Callable[[torch.Tensor], torch.Tensor]:
    return torch.compile(network) if compiled else network


def _convolution_share(step: Step) -> float:
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        step()
    events = seen.key_averages()
    whole = sum(one.self_cpu_time_total for one in events)
    return sum(one.self_cpu_time_total for one in events if "convolution" in one.key) / whole


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
