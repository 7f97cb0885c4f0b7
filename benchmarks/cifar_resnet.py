"""The CIFAR networks of He et al. 2016 (arXiv 1512.03385), section 4.2: `python:benchmarks.cifar_resnet:resnet20`."""

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, relu


class Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut without parameters (option A: every other pixel, channels padded)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride = stride
        self.added_channels = (outputs - inputs) // 2

    def forward(self, features: Tensor) -> Tensor:
        """Return features [batch, outputs, height / stride, width / stride]."""
        shortcut = features
        if self.stride > 1:
            shortcut = pad(features[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, *(2 * [self.added_channels])))
        inner = relu(self.bn1(self.conv1(features)))
        return relu(self.bn2(self.conv2(inner)) + shortcut)


class CifarResNet(nn.Module):
    """6n + 2 layers: n blocks at each of the widths 16, 32 and 64."""

    def __init__(self, depth: int, num_classes: int) -> None:
        super().__init__()
        blocks = (depth - 2) // 6
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = _stage(16, 16, blocks, stride=1)
        self.layer2 = _stage(16, 32, blocks, stride=2)
        self.layer3 = _stage(32, 64, blocks, stride=2)
        self.linear = nn.Linear(64, num_classes)

    def forward(self, image: Tensor) -> Tensor:
        """Return logits [batch, num_classes] of images [batch, 3, 32, 32]."""
        features = relu(self.bn1(self.conv1(image)))
        features = self.layer3(self.layer2(self.layer1(features)))
        return self.linear(torch.flatten(nn.functional.adaptive_avg_pool2d(features, 1), 1))


def _stage(inputs: int, outputs: int, blocks: int, stride: int) -> nn.Sequential:
    rest = [Block(outputs, outputs, 1) for _ in range(blocks - 1)]
    return nn.Sequential(Block(inputs, outputs, stride), *rest)


def resnet20(num_classes: int) -> CifarResNet:
    """Return the network of 0.27 M parameters."""
    return CifarResNet(20, num_classes)


def resnet56(num_classes: int) -> CifarResNet:
    """Return the network of 0.85 M parameters."""
    return CifarResNet(56, num_classes)
