"""Equalization, bias correction and layer errors on networks small enough to reason about."""

import copy

import pytest
import torch
from torch import nn

from mobilekd.errors import StageError
from mobilekd.quantization import qat
from mobilekd.quantization.equalization import equalize
from mobilekd.quantization.lowering import lower
from mobilekd.quantization.paired import correct_biases, layer_errors, run_paired
from mobilekd.quantization.post_training import PostTraining


def separable(activation: nn.Module) -> nn.Module:
    """Return an inverted residual whose channels differ by up to 1000 in range, as in a trained MobileNetV2."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 1),
        activation,
        nn.Conv2d(8, 8, 3, padding=1, groups=8),
        copy.deepcopy(activation),
        nn.Conv2d(8, 4, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )
    factors = torch.logspace(-1.5, 1.5, 8)
    with torch.no_grad():
        network[0].weight.mul_(factors[:, None, None, None])
        network[0].bias.mul_(factors)
        network[2].weight.div_(factors[:, None, None, None])
    return network.eval()


IMAGES = torch.randn(16, 3, 6, 6, generator=torch.Generator().manual_seed(3))


def test_equalization_changes_no_answer_and_levels_what_a_depthwise_layer_reads() -> None:
    graph = lower(separable(nn.ReLU()), IMAGES)
    before = graph(IMAGES)
    assert equalize(graph, IMAGES) == 1
    assert torch.allclose(graph(IMAGES), before, atol=1e-4)
    assert spread(lower(separable(nn.ReLU()), IMAGES)) > 100
    assert spread(graph) < 2.01  # the largest keeps its range, the others get half of it


def spread(graph: torch.fx.GraphModule) -> float:
    """Return the largest channel range between the first two layers over the smallest."""
    first = nn.functional.conv2d(IMAGES, graph.get_parameter("0.weight"), graph.get_parameter("0.bias")).relu()
    ranges = first.detach().amax((0, 2, 3))
    return float(ranges.max() / ranges.min())


def test_equalization_keeps_a_relu6_and_its_answers() -> None:
    graph = lower(separable(nn.ReLU6()), IMAGES)
    before = graph(IMAGES)
    equalize(graph, IMAGES)
    assert [node.target for node in graph.graph.nodes].count(torch.ops.aten.hardtanh.default) == 2
    assert torch.allclose(graph(IMAGES), before, atol=1e-4)


def test_equalization_lowers_the_rounding_error_of_uneven_channels() -> None:
    plain, equalized = (quantized(PostTraining(equalize=one)) for one in (False, True))
    assert error_of(equalized) < 0.5 * error_of(plain)


def quantized(recipe: PostTraining) -> torch.fx.GraphModule:
    return recipe.calibrated(recipe.lowered(separable(nn.ReLU()), IMAGES), [IMAGES])


def error_of(prepared: torch.fx.GraphModule) -> float:
    with torch.no_grad():
        return float((prepared(IMAGES) - separable(nn.ReLU())(IMAGES)).square().mean())


def test_bias_correction_gives_every_layer_the_mean_of_the_float_network() -> None:
    prepared = quantized(PostTraining())
    wanted = layer_means(prepared, side=0)
    correct_biases(prepared, IMAGES)
    for mean, found in zip(wanted, layer_means(prepared, side=1), strict=True):
        assert torch.allclose(found, mean, atol=1e-3)


def layer_means(prepared: torch.fx.GraphModule, *, side: int) -> list[torch.Tensor]:
    """Return the mean output of each channel of each layer, unrounded (0) or rounded (1)."""
    means: list[torch.Tensor] = []

    def measure(node: torch.fx.Node, real: torch.Tensor, rounded: torch.Tensor) -> torch.Tensor:
        if node.target is torch.ops.aten.conv2d.default:
            means.append((real, rounded)[side].mean((0, 2, 3)))
        return rounded

    run_paired(prepared, IMAGES, measure)
    return means


def test_both_sides_of_a_paired_run_are_what_the_networks_give() -> None:
    prepared = quantized(PostTraining())
    real, rounded = run_paired(prepared, IMAGES, lambda node, real, rounded: rounded)
    assert torch.allclose(real, separable(nn.ReLU())(IMAGES), atol=1e-4)
    with torch.no_grad():
        assert torch.equal(rounded, prepared(IMAGES))


def test_the_error_of_a_tensor_whose_range_is_wrong_is_as_large_as_its_signal() -> None:
    prepared = quantized(PostTraining())
    spoiled = next(part for part in prepared.modules() if getattr(part, "name", "") == "2")
    spoiled.scale.mul_(1000)
    assert next(one for one in layer_errors(prepared, IMAGES) if one.name == "2").sqnr_db < 1


def test_calibration_without_an_image_is_refused() -> None:
    prepared = PostTraining().blank(lower(separable(nn.ReLU()), IMAGES))
    with pytest.raises(StageError, match="calibration has no images"):
        qat.calibrate(prepared, [])


def test_an_unknown_layer_to_keep_in_float_is_refused_with_the_choices() -> None:
    with pytest.raises(StageError, match="no layer 'stem' to keep in float") as told:
        PostTraining().blank(lower(separable(nn.ReLU()), IMAGES), frozenset({"stem"}))
    assert told.value.hint == "its layers: 0, 2, 4"


def test_a_layer_kept_in_float_keeps_its_weight() -> None:
    recipe = PostTraining()
    lowered = recipe.lowered(separable(nn.ReLU()), IMAGES)
    prepared = recipe.calibrated(lowered, [IMAGES], frozenset({"2"}))
    names = {part.name for part in prepared.modules() if hasattr(part, "ch_axis")}
    assert names == {"0.weight", "4.weight"}
