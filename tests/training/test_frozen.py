"""A teacher with its BatchNorms folded answers as before, at the same paths."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from mobilekd.training.frozen import folded
from mobilekd.training.networks import build
from mobilekd.training.taps import Taps


def _norms(network: nn.Module) -> int:
    return sum(isinstance(one, nn.modules.batchnorm._BatchNorm) for one in network.modules())


def _with_statistics(network: nn.Module) -> nn.Module:
    """Give every BatchNorm statistics and an affine map of its own: those of a new one change nothing."""
    torch.manual_seed(1)
    for one in network.modules():
        if isinstance(one, nn.modules.batchnorm._BatchNorm) and one.running_mean is not None:
            one.running_mean.normal_()
            one.running_var.uniform_(0.5, 2.0)
            if one.affine:
                nn.init.normal_(one.weight, 1.0, 0.2)
                nn.init.normal_(one.bias)
    return network.eval()


class _Net(nn.Module):
    """conv - bn - relu - pool - linear - bn; `second_reader` also returns what the convolution gave."""

    def __init__(self, *, second_reader: bool = False, twice: bool = False, affine: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, bias=False)
        self.bn = nn.BatchNorm2d(4, affine=affine)
        self.linear = nn.Linear(4, 5)
        self.bn1d = nn.BatchNorm1d(5)
        self._second_reader, self._twice = second_reader, twice

    def forward(self, images: Tensor) -> Tensor:
        before = self.conv(images)
        features = relu(self.bn(before))
        if self._second_reader:
            features = features + before
        if self._twice:
            features = features + self.bn(before * 2)
        return self.bn1d(self.linear(features.mean(dim=(2, 3))))


@pytest.fixture
def images() -> Tensor:
    torch.manual_seed(2)
    return torch.randn(4, 3, 9, 9)


@pytest.mark.parametrize("affine", [True, False])
def test_folding_keeps_the_logits_and_the_network(images: Tensor, *, affine: bool) -> None:
    network = _with_statistics(_Net(affine=affine))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    frozen = folded(network, images[:2])
    assert _norms(frozen) == 0
    assert torch.allclose(frozen(images), network(images), atol=1e-5)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not any(one.requires_grad for one in [frozen.conv.weight, frozen.conv.bias, frozen.linear.weight])


@pytest.mark.parametrize(
    ("network", "norms"),
    [
        (_Net(second_reader=True), 2),  # found by the comparison: nothing is folded then
        (_Net(twice=True), 1),  # the BatchNorm runs twice, so only the one behind the linear layer is folded
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.BatchNorm2d(4), nn.Flatten()), 1),
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False), nn.Flatten()), 1),
        (nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3), nn.Flatten()), 1),
    ],
    ids=["second reader", "twice", "relu in place between", "no statistics", "before the layer"],
)
def test_what_must_not_be_folded_is_left(images: Tensor, network: nn.Module, norms: int) -> None:
    network = _with_statistics(network)
    frozen = folded(network, images[:2])
    assert _norms(frozen) == norms
    assert torch.allclose(frozen(images), network(images), atol=1e-5)


def test_a_layer_whose_own_output_is_read_stays(images: Tensor) -> None:
    network = _with_statistics(_Net())
    frozen = folded(network, images[:2], keep=("conv",))
    assert _norms(frozen) == 1
    read = [Taps(one, ("conv", "bn"), embedding=True, stages=True)(images) for one in (network, frozen)]
    for one, other in zip((*read[0].stages, read[0].embedding), (*read[1].stages, read[1].embedding), strict=True):
        assert torch.allclose(one, other, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "left"),
    [("timm:resnet18", 0), ("timm:mobilenetv3_small_050", 0), ("timm:test_vit", 0)],
)
def test_networks_of_timm(name: str, left: int) -> None:
    network = _with_statistics(build(name, 10))
    size = 160 if "vit" in name else 64
    images = torch.randn(3, 3, size, size)
    frozen = folded(network, images[:2])
    assert _norms(frozen) == left
    assert (frozen is network) == (_norms(network) == 0)
    with torch.no_grad():
        assert torch.allclose(frozen(images), network(images), rtol=1e-3, atol=1e-3)
