"""What is trained is what is converted: scale by scale, and image by image."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mobilekd.quantization import qat
from mobilekd.quantization.lowering import lower
from mobilekd.quantization.scheme import Scheme

Q_OPS = ("quantize_per_tensor", "quantize_per_channel", "dequantize_per_tensor", "dequantize_per_channel")


class Block(nn.Module):
    """Convolution, depthwise convolution and residual add, each as mobile networks have them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
        depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
        self.depthwise = nn.Sequential(depthwise, nn.BatchNorm2d(8), nn.ReLU6())
        self.project = nn.Sequential(nn.Conv2d(8, 8, 1, bias=False), nn.BatchNorm2d(8))
        self.head = nn.Linear(8, 5)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        stem = self.stem(image)
        mixed = stem + self.project(self.depthwise(stem))
        return self.head(nn.functional.adaptive_avg_pool2d(mixed, 1).flatten(1))


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    block = Block()
    with torch.no_grad():
        for _ in range(20):  # statistics of BatchNorm that are not the initial ones
            block(torch.randn(16, 3, 8, 8) * 2 + 1)
    return block.eval()


@pytest.fixture(scope="module", params=["symmetric", "asymmetric"])
def trained(request, network):
    torch.manual_seed(1)
    images = torch.randn(32, 3, 8, 8)
    prepared = qat.prepare(lower(network, images[:2]), Scheme(request.param))
    qat.calibrate(prepared, images.split(8))
    optimizer = torch.optim.SGD(prepared.parameters(), lr=0.01)
    for batch in images.split(8):
        optimizer.zero_grad()
        nn.functional.cross_entropy(prepared(batch), torch.arange(8) % 5).backward()
        optimizer.step()
    with torch.no_grad():
        logits = prepared(images)
    return prepared, images, logits


def test_folding_changes_nothing(network) -> None:
    images = torch.randn(4, 3, 8, 8)
    prepared = qat.prepare(lower(network, images[:2]), Scheme())
    for part in prepared.modules():
        if hasattr(part, "disable_fake_quant"):
            part.disable_fake_quant()
            part.disable_observer()
    assert torch.allclose(prepared(images), network(images), atol=1e-5)


def test_every_scale_of_the_converted_graph_was_trained(trained) -> None:
    prepared, _, _ = trained
    used = {float(value) for scale in qat.trained_scales(prepared) for value in scale}
    converted = qat.convert(copy.deepcopy(prepared))
    found = converted_scales(converted)
    assert found
    assert found <= used


def converted_scales(converted: torch.fx.GraphModule) -> set[float]:
    scales: set[float] = set()
    for node in converted.graph.nodes:
        if any(name in str(node.target) for name in Q_OPS):
            scale = node.args[1]
            value = getattr(converted, scale.target) if isinstance(scale, torch.fx.Node) else torch.tensor(scale)
            scales.update(float(np.float32(one)) for one in value.reshape(-1))
    return scales


def test_the_converted_graph_says_what_was_trained(trained) -> None:
    prepared, images, logits = trained
    with torch.no_grad():
        converted = qat.convert(copy.deepcopy(prepared))(images)
    assert torch.equal(converted.argmax(1), logits.argmax(1))
    assert (converted - logits).abs().max() <= qat.trained_scales(prepared)[-1] * 1.001


def test_an_evaluation_moves_no_activation_range(trained) -> None:
    prepared, images, _ = trained
    before = qat.trained_scales(prepared)
    with torch.no_grad():
        prepared(images * 50)
    assert all(torch.equal(old, new) for old, new in zip(before, qat.trained_scales(prepared), strict=True))


def test_all_weights_are_trained(trained) -> None:
    prepared, _, _ = trained
    parameters = dict(prepared.named_parameters())
    assert len(parameters) == 8
    assert all(one.requires_grad and one.grad is not None for one in parameters.values())


def test_snapped_biases_lie_on_the_grid_of_their_accumulator(trained) -> None:
    prepared = trained[0]
    before = {name: value.clone() for name, value in prepared.named_parameters() if value.ndim == 1}
    qat.snap_biases(prepared)
    once = {name: value.clone() for name, value in prepared.named_parameters() if value.ndim == 1}
    qat.snap_biases(prepared)
    assert before.keys() == {name for name in before if not torch.equal(before[name], once[name])}
    assert all(torch.equal(once[name], prepared.get_parameter(name)) for name in once)


def test_symmetric_zero_points_are_zero(network) -> None:
    images = torch.randn(8, 3, 8, 8)
    prepared = qat.prepare(lower(network, images[:2]), Scheme("symmetric"))
    qat.calibrate(prepared, [images])
    zero_points = [part.zero_point for part in prepared.modules() if hasattr(part, "fake_quant_enabled")]
    assert zero_points
    assert all((one == 0).all() for one in zero_points)


def test_a_clamp_is_fused_and_its_operator_is_not_rounded_alone(network) -> None:
    prepared = qat.prepare(lower(network, torch.randn(2, 3, 8, 8)), Scheme())
    # image, stem, depthwise, project, add, pool (shared with flatten), head; and one for each of four weights
    assert sum(hasattr(part, "fake_quant_enabled") for part in set(prepared.modules())) == 11


@settings(max_examples=30)
@given(st.integers(0, 2**31))
def test_fake_quant_moves_a_weight_by_at_most_half_a_scale(seed: int) -> None:
    weight = torch.randn(4, 3, 1, 1, generator=torch.Generator().manual_seed(seed))
    fake_quant = Scheme().weight(channel_axis=0).observer_or_fake_quant_ctr(
        dtype=torch.int8, quant_min=-127, quant_max=127, qscheme=torch.per_channel_symmetric, ch_axis=0
    )  # fmt: skip
    moved = (fake_quant(weight) - weight).abs()
    assert (moved <= fake_quant.scale[:, None, None, None] / 2 * 1.0001).all()
