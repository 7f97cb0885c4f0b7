"""Two small networks of three resolutions, and methods that read features; 8 x 8 images."""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from mobilekd.method import Batch, Method, Outputs, Sizes


class Net(nn.Module):
    """Three stages of one convolution each, and a linear layer."""

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__()
        self.layer1 = _stage(3, width, 1)
        self.layer2 = _stage(width, 2 * width, 2)
        self.layer3 = _stage(2 * width, 4 * width, 2)
        self.linear = nn.Linear(4 * width, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.linear(self.layer3(self.layer2(self.layer1(images))).mean(dim=(2, 3)))


def _stage(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


def narrow(num_classes: int = 3) -> Net:
    return Net(2, num_classes)


def wide(num_classes: int = 3) -> Net:
    return Net(4, num_classes)


class Maps(Method):
    """Mean squared error of the deepest stage, through a 1 x 1 convolution."""

    reads: ClassVar = frozenset({"stages"})
    weight: float = 10.0

    def adapters(self, student: Outputs, teacher: Outputs, sizes: Sizes) -> nn.Module:
        return nn.Conv2d(student.stages[-1].shape[1], teacher.stages[-1].shape[1], 1)

    def terms(
        self, student: Outputs, teacher: Outputs, batch: Batch, adapters: nn.Module | None
    ) -> Mapping[str, Tensor]:
        return {"maps": nn.functional.mse_loss(adapters(student.stages[-1]), teacher.stages[-1])}


class Count(Method):
    """The number of stages that it sees, and of the channels of the first, as the value of its terms."""

    reads: ClassVar = frozenset({"stages"})

    def terms(
        self, student: Outputs, teacher: Outputs, batch: Batch, adapters: nn.Module | None
    ) -> Mapping[str, Tensor]:
        counts = len(student.stages), student.stages[0].shape[1], teacher.stages[0].shape[1]
        names = ("stages", "student_channels", "teacher_channels")
        return {name: torch.tensor(float(value)) for name, value in zip(names, counts, strict=True)}


class Answer(Method):
    """The mean of the teacher's first logit as the value of its term."""

    def terms(
        self, student: Outputs, teacher: Outputs, batch: Batch, adapters: nn.Module | None
    ) -> Mapping[str, Tensor]:
        return {"answer": teacher.logits[:, 0].mean()}


class Says(nn.Module):
    """A teacher with the same logits for every image; counts its calls."""

    def __init__(self, *logits: float) -> None:
        super().__init__()
        self.logits, self.calls = torch.tensor(logits), 0

    def forward(self, images: Tensor) -> Tensor:
        self.calls += 1
        return self.logits.expand(len(images), -1)
