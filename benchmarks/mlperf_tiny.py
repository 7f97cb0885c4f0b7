"""MLPerf Tiny's image classifier (Banbury et al. 2021, arXiv 2106.07597): `python:benchmarks.mlperf_tiny:resnet8`."""

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, relu


class Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut, which is a 1x1 convolution where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(outputs)
        is_changed = stride > 1 or inputs != outputs
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride=stride) if is_changed else nn.Identity()

    def forward(self, features: Tensor) -> Tensor:
        """Return features [batch, outputs, height / stride, width / stride]."""
        inner = relu(self.bn1(self.conv1(features)))
        return relu(self.bn2(self.conv2(inner)) + self.shortcut(features))


class Resnet8(nn.Module):
    """A 3x3 stem of 16 and three stages of one block: 16, 32 and 64 channels."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.bn = nn.BatchNorm2d(16)
        self.stage1 = Block(16, 16, 1)
        self.stage2 = Block(16, 32, 2)
        self.stage3 = Block(32, 64, 2)
        self.linear = nn.Linear(64, num_classes)

    def forward(self, image: Tensor) -> Tensor:
        """Return logits [batch, num_classes] of images [batch, 3, 32, 32]."""
        features = relu(self.bn(self.stem(image)))
        features = self.stage3(self.stage2(self.stage1(features)))
        return self.linear(torch.flatten(adaptive_avg_pool2d(features, 1), 1))


def resnet8(num_classes: int) -> Resnet8:
    """Return the network of 78 k parameters."""
    return Resnet8(num_classes)
