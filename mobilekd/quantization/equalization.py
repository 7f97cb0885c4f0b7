"""Cross-layer equalization (Nagel et al. 2019, arXiv 1906.04721, section 4.1) on a lowered graph."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from mobilekd.quantization.folding import set_layer
from mobilekd.quantization.graph_tools import argument, aten, constant

_ROUNDS = 40
_CONVERGED = 1e-3
_LAYERS = {aten.conv2d.default, aten.linear.default}
_HOMOGENEOUS = {aten.relu.default}
"""f(s x) = s f(x) for s > 0: a scale of its input may move behind it."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two layers with nothing but a homogeneous activation between; the first feeds the second alone."""

    first: Node
    second: Node


def equalize(model: GraphModule) -> int:
    """Give each channel between two layers the same weight range on both sides, in place; what is computed stays.

    With s_i = sqrt(r1_i / r2_i), r the largest weight of channel i on either side, the first layer is divided by s and
    the second multiplied (equation 11 of the paper). ReLU6 between them becomes ReLU, as in the paper's section 5.1.

    Returns:
        How many pairs of layers there are.
    """
    pairs = list(_pairs(model))
    for _ in range(_ROUNDS):
        if max((_balance(model, pair) for pair in pairs), default=0.0) < _CONVERGED:
            break
    model.recompile()
    return len(pairs)


def _pairs(model: GraphModule) -> Iterator[Pair]:
    for node in list(model.graph.nodes):
        if node.target not in _LAYERS or len(node.users) != 1 or constant(model, node.args[1]) is None:
            continue
        follower = next(iter(node.users))
        if _is_relu6(follower) and len(follower.users) == 1 and _reads(model, next(iter(follower.users)), follower):
            follower.target, follower.args = aten.relu.default, follower.args[:1]
        if follower.target in _HOMOGENEOUS and len(follower.users) == 1:
            node_between, follower = follower, next(iter(follower.users))
        else:
            node_between = node
        if _reads(model, follower, node_between):
            yield Pair(node, follower)


def _reads(model: GraphModule, layer: Node, source: Node) -> bool:
    if layer.target not in _LAYERS or layer.args[0] is not source or constant(model, layer.args[1]) is None:
        return False
    return _groups(layer) == 1 or _is_depthwise(model, layer)


def _is_relu6(node: Node) -> bool:
    if node.target is aten.relu6.default:
        return True
    return node.target is aten.hardtanh.default and tuple(argument(node, at, None) for at in (1, 2)) == (0.0, 6.0)


def _groups(layer: Node) -> int:
    return int(argument(layer, 6, 1)) if layer.target is aten.conv2d.default else 1  # type: ignore[call-overload]


def _is_depthwise(model: GraphModule, layer: Node) -> bool:
    weight = constant(model, layer.args[1])
    return weight is not None and weight.shape[0] == _groups(layer) and weight.shape[1] == 1


def _balance(model: GraphModule, pair: Pair) -> float:
    """Equalize one pair; return by how much the largest factor is off 1."""
    first, second = constant(model, pair.first.args[1]), constant(model, pair.second.args[1])
    bias, second_bias = constant(model, pair.first.args[2]), constant(model, pair.second.args[2])
    assert first is not None
    assert second is not None
    assert bias is not None
    assert second_bias is not None
    is_depthwise = _groups(pair.second) > 1
    inputs_first = second if is_depthwise else second.transpose(0, 1)
    ranges = [_ranges(one) for one in (first, inputs_first)]
    is_alive = (ranges[0] > 1e-8) & (ranges[1] > 1e-8)
    factor = torch.where(is_alive, (ranges[0] / ranges[1].clamp_min(1e-12)).sqrt(), 1.0)
    set_layer(model, pair.first, first / _along(factor, first, 0), bias / factor)
    set_layer(model, pair.second, second * _along(factor, second, 0 if is_depthwise else 1), second_bias)
    return float((factor - 1).abs().max())


def _ranges(weight: Tensor) -> Tensor:
    return weight.reshape(len(weight), -1).abs().amax(dim=1)


def _along(factor: Tensor, weight: Tensor, axis: int) -> Tensor:
    view = [1] * weight.ndim
    view[axis] = -1
    return factor.reshape(view)
