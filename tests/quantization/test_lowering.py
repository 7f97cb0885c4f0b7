"""Lowering changes no answer, and leaves only operators that every runtime has in int8."""

import copy

import pytest
import torch
from torch import nn
from torch.fx import GraphModule

from mobilekd.errors import StageError
from mobilekd.quantization.lowering import lower, merge_branches

aten = torch.ops.aten


def settled(network: nn.Module, size: int = 8) -> nn.Module:
    """Return the network with BatchNorm statistics and gains that are not the initial ones."""
    torch.manual_seed(0)
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias)
    with torch.no_grad():
        for _ in range(5):
            network.train()(torch.randn(8, 3, size, size) * 2 + 1)
    return network.eval()


def targets(graph: GraphModule) -> list[object]:
    return [node.target for node in graph.graph.nodes if node.op == "call_function"]


def lowered(network: nn.Module, size: int = 8) -> GraphModule:
    """Lower a network and hold its answers against the network's."""
    images = torch.randn(3, 3, size, size)
    network = settled(network, size)
    graph = lower(network, images)
    with torch.no_grad():
        assert torch.allclose(graph(images), network(images), atol=1e-4, rtol=1e-4)
    return graph


class PreActivation(nn.Module):
    """BatchNorm before the convolution, as in DenseNet, and average pooling between blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm, self.conv = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(7), nn.Conv2d(7, 5, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        features = torch.cat([image, self.stem(image)], 1)
        pooled = nn.functional.avg_pool2d(self.conv(self.norm(features).relu()), 2)
        return pooled.mean((2, 3))


def test_a_batch_norm_without_a_layer_before_it_becomes_a_depthwise_convolution() -> None:
    graph = lowered(PreActivation())
    assert aten.batch_norm.default not in targets(graph)
    convolutions = [node for node in graph.graph.nodes if node.target is aten.conv2d.default]
    assert [node.args[6] if len(node.args) > 6 else 1 for node in convolutions] == [1, 7, 1, 5]


def test_average_pooling_becomes_a_depthwise_convolution() -> None:
    assert aten.avg_pool2d.default not in targets(lowered(PreActivation()))


@pytest.mark.parametrize("options", [{"padding": 1, "count_include_pad": False}, {"ceil_mode": True}])
def test_pooling_with_partial_windows_stays_a_pool(options) -> None:
    pool = nn.AvgPool2d(3, 2, **options)
    assert aten.avg_pool2d.default in targets(lowered(nn.Sequential(nn.Conv2d(3, 4, 1), pool, nn.Flatten())))


@pytest.mark.parametrize("size", [1, 3, 7, 10])
@pytest.mark.parametrize("head", [nn.Conv2d(4, 6, 7), nn.Sequential(nn.Flatten(), nn.Linear(196, 6))])
def test_an_adaptive_pool_is_folded_into_the_layer_that_reads_all_of_it(size, head) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.AdaptiveAvgPool2d(7), head, nn.Flatten())
    assert aten.adaptive_avg_pool2d.default not in targets(lowered(network, size))


class Shuffle(nn.Module):
    """Channel shuffle of ShuffleNet: groups swapped with the channels inside them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 12, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        features = self.conv(image)
        batch, channels, height, width = features.shape
        groups = features.view(batch, 3, channels // 3, height, width)
        return groups.transpose(1, 2).contiguous().view(batch, channels, height, width).amax((2, 3))


def test_a_channel_shuffle_becomes_one_gather() -> None:
    found = targets(lowered(Shuffle()))
    assert found.count(aten.index_select.default) == 1
    assert aten.transpose.int not in found


class Attention(nn.Module):
    """One head over the pixels, a layer scale behind its projection."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 1), nn.LayerNorm(8)
        self.qkv, self.proj = nn.Linear(8, 24), nn.Linear(8, 8)
        self.gamma = nn.Parameter(torch.linspace(0.1, 0.8, 8))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        tokens = self.norm(self.conv(image).flatten(2).transpose(1, 2))
        query, key, value = self.qkv(tokens).chunk(3, dim=-1)
        mixed = nn.functional.scaled_dot_product_attention(query, key, value)
        return (tokens + self.proj(mixed) * self.gamma).mean(1)


def test_attention_is_written_out_and_its_linear_layers_work_on_rows() -> None:
    graph = lowered(Attention())
    assert aten.scaled_dot_product_attention.default not in targets(graph)
    assert targets(graph).count(aten.matmul.default) == 2
    linears = [node for node in graph.graph.nodes if node.target is aten.linear.default]
    assert [node.meta["val"].ndim for node in linears] == [2, 2]


class ScaledConvolution(nn.Module):
    """A layer scale on a map, behind a layer and behind a sum."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, bias=False)
        self.inner, self.outer = nn.Parameter(torch.rand(4, 1, 1) + 0.5), nn.Parameter(torch.rand(1, 4, 1, 1) + 0.5)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        scaled = self.conv(image) * self.inner
        return ((scaled + scaled.relu()) * self.outer).mean((2, 3))


def test_channel_scales_are_folded_or_become_depthwise_convolutions() -> None:
    found = targets(lowered(ScaledConvolution()))
    assert aten.mul.Tensor not in found
    assert found.count(aten.conv2d.default) == 2


def test_every_layer_has_a_bias_named_for_it() -> None:
    graph = lowered(nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    conv = next(node for node in graph.graph.nodes if node.target is aten.conv2d.default)
    assert [node.target for node in conv.args[1:3]] == ["0.weight", "0.bias"]


class TwoBranches(nn.Module):
    """Two convolutions that `reparameterize` merges, as timm's blocks do."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1)
        self.merged: nn.Conv2d | None = None

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.merged(image) if self.merged is not None else self.left(image) + self.right(image)

    def reparameterize(self) -> None:
        self.merged = nn.Conv2d(3, 4, 1)
        with torch.no_grad():
            self.merged.weight.copy_(self.left.weight + self.right.weight)
            self.merged.bias.copy_(self.left.bias + self.right.bias)
        del self.left, self.right


def test_branches_are_merged_in_a_copy() -> None:
    network = nn.Sequential(TwoBranches(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    images = torch.randn(2, 3, 4, 4)
    merged = merge_branches(network)
    assert torch.allclose(merged(images), network(images), atol=1e-6)
    assert network[0].merged is None
    assert merged[0].merged is not None


class Branches(nn.Module):
    """Control flow that depends on a value."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        if image.sum() > 0:
            return image.mean((2, 3))
        return -image.mean((2, 3))


def test_a_network_that_cannot_be_exported_is_told_with_its_line() -> None:
    with pytest.raises(StageError, match=r"test_lowering\.py:\d+: if image\.sum\(\) > 0") as told:
        lower(Branches(), torch.randn(2, 3, 4, 4))
    assert "can't be exported" in told.value.message


def test_the_network_itself_is_not_changed() -> None:
    network = settled(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    before = copy.deepcopy(network.state_dict())
    lower(network, torch.randn(2, 3, 4, 4))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
