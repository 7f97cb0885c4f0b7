"""The ways to distil ResNet-56 into ResNet-20 that `kd_speed` compares; each runs as a process of its own.

The process reads one `Task` a line as JSON from stdin, runs it, and answers with one line on stdout: the seconds of
each step, of the whole task, and, when asked for, top-1 on the test images. Between tasks it sleeps, so that the others
have the machine to themselves.
"""

import argparse
import functools
import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div, log_softmax, softmax

from benchmarks.cifar_resnet import resnet20, resnet56
from mobilekd.training import networks
from mobilekd.training.torchvision_ops import declare_torchvision_ops

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TEMPERATURE, SOFT_WEIGHT, BATCH = 4.0, 0.9, 128
LEARNING_RATE, WEIGHT_DECAY = 0.1, 1e-4


@dataclass(frozen=True, slots=True)
class Task:
    """What to train on.

    Attributes:
        images: Of the training split, from its start; each epoch visits all of them but the last, smaller batch.
        views: Ways that an image is augmented, for the contender that repeats them; the others draw anew each epoch.
        workers: Processes of the DataLoader, for the contenders that have one.
        test: Whether top-1 on the test images is wanted.
    """

    images: int
    epochs: int
    threads: int
    seed: int = 0
    views: int = 8
    workers: int = 0
    test: bool = False

    @property
    def steps(self) -> int:
        """Steps of the whole task."""
        return self.epochs * (self.images // BATCH)


@dataclass(frozen=True, slots=True)
class Data:
    """CIFAR-10 (uint8 [n, 32, 32, 3], int64 [n]) and the teacher, in evaluation mode and frozen."""

    x_train: NDArray[np.uint8]
    y_train: NDArray[np.int64]
    x_test: NDArray[np.uint8]
    y_test: NDArray[np.int64]
    teacher: nn.Module


class Clock:
    """Called after each step.

    Attributes:
        stamps: When the task began and each step ended, in seconds.
        teacher_s: What getting the teacher's answer cost in each step; only the ways that keep answers fill it.
    """

    def __init__(self) -> None:
        self.stamps = [time.perf_counter()]
        self.teacher_s: list[float] = []

    def __call__(self) -> None:
        """Stamp the end of a step."""
        self.stamps.append(time.perf_counter())


Contender = Callable[[Task, Data, Clock], nn.Module]
"""Trains a student and returns it; calls the clock after each step."""


def plain(task: Task, data: Data, on_step: Clock) -> nn.Module:
    """Train as a PyTorch tutorial does: fp32, the teacher in each step."""
    return _loop(task, data, on_step, precision="fp32")


def plain_bf16(task: Task, data: Data, on_step: Clock) -> nn.Module:
    """Train as a PyTorch tutorial does, teacher and student in bf16 autocast and channels-last memory."""
    return _loop(task, data, on_step, precision="bf16")


def _loop(task: Task, data: Data, on_step: Clock, precision: str) -> nn.Module:
    is_bf16 = precision == "bf16"
    layout = torch.channels_last if is_bf16 else torch.contiguous_format
    student = networks.channels_last(resnet20(10)) if is_bf16 else resnet20(10)
    teacher = networks.channels_last(data.teacher) if is_bf16 else data.teacher
    optimizer = torch.optim.SGD(
        student.parameters(), lr=LEARNING_RATE, momentum=0.9, weight_decay=WEIGHT_DECAY, nesterov=True
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, task.steps)
    loader = torch.utils.data.DataLoader(
        _dataset(task, data), BATCH, shuffle=True, num_workers=task.workers, drop_last=True
    )
    for _ in range(task.epochs):
        for batch, labels in loader:
            images = batch.to(memory_format=layout)
            with torch.autocast("cpu", torch.bfloat16, enabled=is_bf16):
                with torch.no_grad():
                    taught = teacher(images)
                logits = student(images)
            soft = kl_div(
                log_softmax(logits.float() / TEMPERATURE, 1),
                softmax(taught.float() / TEMPERATURE, 1),
                reduction="batchmean",
            )
            hard = cross_entropy(logits.float(), labels)
            loss = (1 - SOFT_WEIGHT) * hard + SOFT_WEIGHT * TEMPERATURE**2 * soft
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            on_step()
    return student


def torchdistill(task: Task, data: Data, on_step: Clock) -> nn.Module:
    """Train with torchdistill's box, configured and driven as its sample config and example for CIFAR-10 do."""
    declare_torchvision_ops()
    from torchdistill.core.distillation import get_distillation_box
    from torchdistill.misc.log import MetricLogger, SmoothedValue

    device, student = torch.device("cpu"), resnet20(10)
    datasets = {"cifar10/train": _dataset(task, data)}
    box = get_distillation_box(data.teacher, student, datasets, _box_config(task), device, None, False, 1)  # noqa: FBT003
    for epoch in range(box.num_epochs):
        box.pre_epoch_process(epoch=epoch)
        log = MetricLogger(delimiter="  ")
        log.add_meter("lr", SmoothedValue(window_size=1, fmt="{value}"))
        log.add_meter("img/s", SmoothedValue(window_size=10, fmt="{value}"))
        for images, labels, extra in log.log_every(box.train_data_loader, 100, f"Epoch: [{epoch}]"):
            started = time.time()
            batch, targets = images.to(device), labels.to(device)
            loss = box.forward_process(batch, targets, extra)
            box.post_forward_process(loss=loss)
            log.update(loss=loss.item(), lr=box.optimizer.param_groups[0]["lr"])
            log.meters["img/s"].update(len(batch) / (time.time() - started))
            on_step()
        box.post_epoch_process()
    box.clean_modules()
    return student


def _box_config(task: Task) -> dict[str, Any]:
    paths = {f"{who}_module_{what}": to for who in ("student", "teacher") for what, to in _WHOLE.items()}
    kd = {**paths, "temperature": TEMPERATURE, "alpha": 1 - SOFT_WEIGHT, "reduction": "batchmean"}
    terms = {"kd": {"criterion": {"key": "KDLoss", "kwargs": kd}, "weight": 1.0}}
    step = {"lr": LEARNING_RATE, "momentum": 0.9, "weight_decay": WEIGHT_DECAY, "nesterov": True}
    return {
        "num_epochs": task.epochs,
        "train_data_loader": {
            "dataset_id": "cifar10/train",
            "sampler": {"class_or_func": torch.utils.data.RandomSampler},
            "kwargs": {"batch_size": BATCH, "num_workers": task.workers, "drop_last": True},
        },
        "teacher": {"forward_proc": "forward_batch_only", "sequential": [], "requires_grad": False},
        "student": {"forward_proc": "forward_batch_only", "sequential": [], "requires_grad": True},
        "optimizer": {"key": "SGD", "kwargs": step},
        "scheduler": {"key": "CosineAnnealingLR", "kwargs": {"T_max": task.steps}, "scheduling_step": 1},
        "criterion": {"key": "WeightedSumLoss", "kwargs": {"sub_terms": terms}},
    }


_WHOLE = {"path": ".", "io": "output"}


def _dataset(task: Task, data: Data) -> Any:
    declare_torchvision_ops()
    from torchvision import datasets, transforms

    class Held(datasets.CIFAR10):
        """torchvision's CIFAR-10 with arrays that are in memory already, in place of its download."""

        def __init__(self, images: NDArray[np.uint8], labels: list[int], transform: Any) -> None:
            self.data, self.targets = images, labels
            self.transform, self.target_transform = transform, None

    steps = [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip(), transforms.ToTensor()]
    augmented = transforms.Compose([*steps, transforms.Normalize(MEAN, STD)])
    return Held(data.x_train[: task.images], data.y_train[: task.images].tolist(), augmented)


def ours(task: Task, data: Data, on_step: Clock, *, is_compiled: bool = False) -> nn.Module:
    """Train with this project's loop: bf16, channels last, `views` augmentations whose teacher logits are kept.

    Its recipe differs from the others' in three points: a crop repeats the edge pixels and not zeros, the learning rate
    rises over the first tenth of the run, and vectors (BatchNorm, biases) are not decayed.
    """
    from mobilekd.method import Sizes
    from mobilekd.methods.kd import Kd
    from mobilekd.training.augmentation import Augmentation
    from mobilekd.training.data import DatasetFacts, Images
    from mobilekd.training.loop import Recipe, Run, fit
    from mobilekd.training.objective import Objective, TeacherNetwork
    from mobilekd.training.soft_labels import SoftLabels
    from mobilekd.training.strategy import Part, Strategy

    names = tuple(map(str, range(10)))
    facts = DatasetFacts("cifar10", names, (32, 32), MEAN, STD, "none", {"train": task.images}, "", "")
    train = Images(data.x_train[: task.images], data.y_train[: task.images], facts)
    few = Images(data.x_train[-BATCH:], data.y_train[-BATCH:], facts)  # the others validate nothing while they train
    student = networks.channels_last(resnet20(10))
    recipe = Recipe(
        epochs=task.epochs,
        batch_size=BATCH,
        learning_rate=LEARNING_RATE,
        weight_decay=WEIGHT_DECAY,
        optimizer="sgd",
        threads=task.threads,
        seed=task.seed,
        precision="bf16",
        compile=is_compiled,
        views=task.views,
        augmentation=Augmentation(shift_pixels=4, flip=True),
    )

    class TimedSoftLabels(SoftLabels):
        def answers(self, rows: Tensor, view: int, ask: Callable[[Tensor], Tensor]) -> Tensor:
            began = time.perf_counter()
            found = super().answers(rows, view, ask)
            on_step.teacher_s.append(time.perf_counter() - began)
            return found

    strategy = Strategy(1 - SOFT_WEIGHT, (Part("kd", Kd(temperature=TEMPERATURE, weight=SOFT_WEIGHT)),))
    two, sizes = torch.from_numpy(train.normalized(slice(2))), Sizes(task.images, len(names))
    with tempfile.TemporaryDirectory() as folder:
        kept = TimedSoftLabels(Path(folder), images=task.images, classes=len(names))
        teachers = [TeacherNetwork(networks.channels_last(data.teacher), soft_labels=kept)]
        loss = Objective(student, teachers, strategy, example=two, sizes=sizes, seed=task.seed)
        fit(Run("distill", student, loss, train, few, Path(folder) / "checkpoint.pt", _Steps(on_step)), recipe)
        loss.close()
    return student


class _Steps:
    """The progress of `fit`, which tells only of finished steps."""

    def __init__(self, on_step: Callable[[], None]) -> None:
        self._on_step = on_step

    @contextmanager
    def bar(self, title: str, total: int) -> Iterator["_Steps"]:
        """Show nothing."""
        del title, total
        yield self

    def advance(self, steps: int = 1, note: str = "") -> None:
        """Tell of a step."""
        del note
        if steps == 1:
            self._on_step()

    def say(self, line: str) -> None:
        """Write a line where logs go."""
        print(line, file=sys.stderr)


CONTENDERS: dict[str, Contender] = {
    "plain": plain,
    "plain-bf16": plain_bf16,
    "torchdistill": torchdistill,
    "ours": ours,
    "ours compiled": functools.partial(ours, is_compiled=True),
}


def main(arguments: Sequence[str]) -> int:
    """Answer tasks until stdin ends."""
    parser = argparse.ArgumentParser(prog="benchmarks.kd_contenders")
    parser.add_argument("contender", choices=sorted(CONTENDERS))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--teacher", type=Path, required=True)
    options = parser.parse_args(arguments)
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a library prints must not end up between the answers
    with np.load(options.data) as arrays:
        held = {name: arrays[name] for name in ("x_train", "y_train", "x_test", "y_test")}
    held |= {name: held[name].astype(np.int64) for name in ("y_train", "y_test")}
    data = Data(**held, teacher=_teacher(options.teacher))
    for line in sys.stdin:
        print(json.dumps(_answer(CONTENDERS[options.contender], Task(**json.loads(line)), data)), file=answers)
    return 0


def _answer(contender: Contender, task: Task, data: Data) -> dict[str, Any]:
    torch.set_num_threads(task.threads)
    torch.manual_seed(task.seed)
    clock = Clock()
    student = contender(task, data, clock)
    seconds = clock.stamps[-1] - clock.stamps[0]
    answer: dict[str, Any] = {"seconds": seconds, "steps": np.diff(clock.stamps).tolist(), "teacher": clock.teacher_s}
    if task.test:
        answer["top1"] = _top1(student, data)
    return answer


def _teacher(path: Path) -> nn.Module:
    state = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    teacher = resnet56(10)
    teacher.load_state_dict({name.removeprefix("module."): value for name, value in state.items()})
    return teacher.eval().requires_grad_(requires_grad=False)


def _top1(network: nn.Module, data: Data) -> float:
    network.eval()
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    parts: list[Tensor] = []
    with torch.no_grad():
        for images in np.array_split(data.x_test, math.ceil(len(data.x_test) / 500)):
            pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
            parts.append(network((pixels - mean) / std).argmax(1))
    return float((torch.cat(parts).numpy() == data.y_test).mean())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
