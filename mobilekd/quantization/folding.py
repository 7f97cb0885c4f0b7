"""Passes that fold constants, BatchNorm and per-channel scales into weights."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from mobilekd.quantization.graph_tools import (
    add_constant,
    argument,
    aten,
    call,
    constant,
    integers,
    layer_name,
    rank,
    replace,
    set_constant,
    shape,
    source,
)

OUTPUT_AXIS: dict[object, int] = {
    aten.conv1d.default: 0,
    aten.conv2d.default: 0,
    aten.linear.default: 0,
    aten.conv_transpose2d.input: 1,
}
"""Operators with a weight, and the axis of its output channels (of one group, for the transposed one)."""

_CARRIES_CHANNELS = {aten.permute.default, aten.transpose.int}


def compute_constants(model: GraphModule) -> None:
    """Replace operators that read nothing but constants by their result: positional encodings, reshaped scales."""
    for node in list(model.graph.nodes):
        if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload) or not node.users:
            continue
        values = {one: constant(model, one) for one in node.all_input_nodes}
        if any(value is None for value in values.values()):
            continue
        with torch.no_grad():
            result = node.target(*_filled(node.args, values), **_filled(node.kwargs, values))
        if isinstance(result, Tensor):
            replace(node, add_constant(model, node, f"constants.{node.name}", result))


def _filled(arguments: Any, values: Mapping[Node, Tensor | None]) -> Any:
    return torch.fx.node.map_arg(arguments, values.__getitem__)


def fold_batch_norms(model: GraphModule) -> None:
    """Fold each BatchNorm into the layer before it; where there is none, it becomes a depthwise 1x1 convolution.

    DenseNet and other pre-activation networks normalise a concatenation. A depthwise convolution has an int8 kernel
    with one scale a channel and an int32 bias everywhere, and takes the ReLU behind it.
    """
    for node in list(model.graph.nodes):
        if node.target is not aten.batch_norm.default:
            continue
        statistics = [constant(model, one) for one in node.args[1:5]]
        gamma, beta, mean, variance = statistics
        if mean is None or variance is None:
            continue
        slope = torch.rsqrt(variance + float(node.args[7])) * (1.0 if gamma is None else gamma)
        offset = (0.0 if beta is None else beta) - mean * slope
        layer = source(node)
        if layer.target in OUTPUT_AXIS and len(layer.users) == 1 and scale_layer(model, layer, slope, offset):
            replace(node, layer)
        elif rank(node) == 4:
            name = str(source(node, 3).target).removesuffix(".running_mean")
            replace(node, depthwise(model, node, layer, Layer(name, slope[:, None, None, None], offset)))


def fold_channel_scales(model: GraphModule) -> None:
    """Fold a multiplication by one constant a channel (layer scale) into the layer before it, through transposes."""
    for node in list(model.graph.nodes):
        flowing, factor = _by_constant(model, node, (aten.mul.Tensor,))
        if flowing is None or factor is None:
            continue
        layer = flowing
        while layer.target in _CARRIES_CHANNELS and len(layer.users) == 1:
            layer = source(layer)
        axis = _channel_axis(flowing, layer)
        if layer.target not in OUTPUT_AXIS or len(layer.users) != 1 or axis is None:
            continue
        vector = _vector(factor, rank(flowing), axis, shape(layer))
        if vector is not None and scale_layer(model, layer, vector, torch.zeros_like(vector)):
            replace(node, flowing)


def affines_to_convolutions(model: GraphModule) -> None:
    """Write a multiplication by, or an addition of, one constant a channel of a map as a depthwise 1x1 convolution.

    A constant with one scale for all channels would lose bits; a depthwise weight has one for each.
    """
    for node in list(model.graph.nodes):
        flowing, value = _by_constant(model, node, (aten.mul.Tensor, aten.add.Tensor))
        if flowing is None or value is None or rank(flowing) != 4 or rank(node) != 4:
            continue
        vector = _vector(value, 4, 1, shape(flowing))
        if vector is None:
            continue
        is_product = node.target is aten.mul.Tensor
        slope = vector if is_product else torch.ones_like(vector)
        offset = torch.zeros_like(vector) if is_product else vector
        name = next(str(one.target) for one in node.all_input_nodes if one is not flowing)
        replace(node, depthwise(model, node, flowing, Layer(name, slope[:, None, None, None], offset)))


def scale_layer(model: GraphModule, layer: Node, slope: Tensor, offset: Tensor) -> bool:
    """Multiply a layer's output by `slope` and add `offset`, one each a channel, in its weights; False if it can't."""
    weight_node, bias_node = layer.args[1], argument(layer, 2, None)
    weight, bias = constant(model, weight_node), constant(model, bias_node)
    if weight is None or (bias_node is not None and bias is None):
        return False
    axis = OUTPUT_AXIS[layer.target]
    groups = argument(layer, 6, 1) if layer.target is aten.conv_transpose2d.input else 1
    if groups != 1 or weight.shape[axis] != len(slope):
        return False
    view = [1] * weight.ndim
    view[axis] = -1
    new_bias = offset if bias is None else bias * slope + offset
    set_layer(model, layer, weight * slope.reshape(view), new_bias)
    return True


def set_layer(model: GraphModule, layer: Node, weight: Tensor, bias: Tensor) -> None:
    """Give a layer a weight and a bias; a parameter that another layer reads too is left to that one."""
    nodes = (layer.args[1], argument(layer, 2, None))
    new = []
    for node, leaf, value in zip(nodes, ("weight", "bias"), (weight, bias), strict=True):
        if isinstance(node, Node) and len(node.users) == 1:
            set_constant(model, node, value)
            new.append(node)
        else:
            new.append(add_constant(model, layer, f"{_owner(layer)}.{leaf}", value, is_trained=True))
    layer.args = (layer.args[0], *new, *layer.args[3:])
    layer.kwargs = {key: value for key, value in layer.kwargs.items() if key != "bias"}


def give_biases(model: GraphModule) -> None:
    """Give every layer a bias: int8 kernels have one anyway, and bias correction needs it."""
    for node in list(model.graph.nodes):
        weight = constant(model, node.args[1]) if node.target in OUTPUT_AXIS else None
        if weight is not None and argument(node, 2, None) is None:
            groups = argument(node, 6, 1) if node.target is aten.conv_transpose2d.input else 1
            channels = weight.shape[OUTPUT_AXIS[node.target]] * int(groups)  # type: ignore[call-overload]
            set_layer(model, node, weight, torch.zeros(channels))


def _owner(layer: Node) -> str:
    """Return where a layer's new parameters go: the module of its weight."""
    weight = source(layer, 1)
    return layer_name(weight) + ("" if str(weight.target).endswith(".weight") else "_layer")


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer to insert: its name, weight [channels, 1, height, width] and bias [channels]."""

    name: str
    weight: Tensor
    bias: Tensor


def depthwise(model: GraphModule, before: Node, features: Node, layer: Layer, *, is_trained: bool = True) -> Node:
    """Insert a depthwise convolution of stride 1 without padding before a node."""
    weight = add_constant(model, before, f"{layer.name}_depthwise.weight", layer.weight, is_trained=is_trained)
    bias = add_constant(model, before, f"{layer.name}_depthwise.bias", layer.bias, is_trained=is_trained)
    options = ([1, 1], [0, 0], [1, 1], len(layer.weight))
    return call(model, before, aten.conv2d.default, (features, weight, bias, *options))


def _by_constant(model: GraphModule, node: Node, targets: tuple[object, ...]) -> tuple[Node | None, Tensor | None]:
    """Return what flows into a binary operator and the constant beside it; (None, None) for anything else."""
    if node.target not in targets or len(node.args) != 2 or node.kwargs:
        return None, None
    first, second = node.args
    for flowing, other in ((first, second), (second, first)):
        value = constant(model, other)
        if isinstance(flowing, Node) and flowing.op != "get_attr" and value is not None:
            return flowing, value
    return None, None


def _vector(value: Tensor, dimensions: int, axis: int, layer_shape: tuple[int, ...]) -> Tensor | None:
    """Return a constant as one number a channel, [channels]; None when it varies along another axis."""
    view = [1] * (dimensions - value.ndim) + list(value.shape)
    if len(view) != dimensions or value.numel() != view[axis] or value.numel() == 1:
        return None
    return value.reshape(-1) if value.numel() in layer_shape else None


def _channel_axis(flowing: Node, layer: Node) -> int | None:
    """Return where a layer's output channels are after the transposes between it and `flowing`."""
    chain = []
    node = flowing
    while node is not layer:
        chain.append(node)
        node = source(node)
    dimensions = rank(layer)
    if not dimensions:
        return None
    axis = dimensions - 1 if layer.target is aten.linear.default else 1
    for step in reversed(chain):
        if step.target is aten.permute.default:
            axis = [one % dimensions for one in integers(step.args[1])].index(axis)
        else:
            first, second = (one % dimensions for one in integers(step.args[1:3]))
            axis = {first: second, second: first}.get(axis, axis)
    return axis
