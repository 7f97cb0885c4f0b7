"""A network of four layers, one of which int8 spoils: a weight of 1000 on a channel that is always zero."""

import torch
from torch import Tensor, nn

from mobilekd.quantization.post_training import PostTraining

CLASSES, SIZE = 5, 8
LAYERS = ("stem", "middle", "spoiled", "head")
RECIPE = PostTraining()


class Plain(nn.Module):
    """Three convolutions and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.middle = nn.Conv2d(8, 8, 3, padding=1)
        self.spoiled = nn.Conv2d(8, 8, 1)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, image: Tensor) -> Tensor:
        flowing = self.middle(self.stem(image).relu()).relu()
        return self.head(self.spoiled(flowing).relu().mean((2, 3)))


def plain(num_classes: int = CLASSES, *, is_spoiled: bool = True) -> nn.Module:
    """Return the network with seeded weights."""
    assert num_classes == CLASSES
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Plain()
    with torch.no_grad():
        if is_spoiled:
            network.middle.weight[0] = 0
            network.middle.bias[0] = -1
            network.spoiled.weight[:, 0] = 1000
        network.head.bias.zero_()
        logits = network(images())  # spread the answers
        gain = 3 / logits.std(dim=0)
        network.head.weight.mul_(gain[:, None])
        network.head.bias.copy_(-logits.mean(dim=0) * gain)
    return network.eval()


def images(count: int = 40) -> Tensor:
    """Return seeded images of five colours with noise, [count, 3, 8, 8]."""
    generator = torch.Generator().manual_seed(1)
    colours = 2 * torch.randn(CLASSES, 3, 1, 1, generator=generator)
    noise = torch.randn(count, 3, SIZE, SIZE, generator=generator)
    return colours[torch.arange(count) % CLASSES] + noise


def answers(network: nn.Module, given: Tensor) -> Tensor:
    """Return the labels that a network gives, [n]: against these its own top-1 is 1."""
    with torch.no_grad():
        return network(given).argmax(dim=1)
