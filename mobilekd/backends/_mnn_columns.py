"""Layers as wide as MNN's int8 kernel for i8mm needs them.

On a CPU with i8mm, MNN 3.6.1 gets layers wrong that have an odd number of pixels (1 of a linear layer or a
squeeze-excite, 49 of the last maps of a 224-pixel network) and an odd number of quads of output channels (3 for 10
classes): the last pixel of the last quad, with 3, 7 or 13 pixels that of other quads too; a process that ran many such
layers was ended by SIGABRT. Seen with 1 to 64 pixels, kernels of 1 and 3, and 2 to 100 channels; where either number
is even all is right, and so is a depthwise convolution.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper, numpy_helper

from mobilekd.backends._mnn_file import MnnOp
from mobilekd.backends._mnn_layers import Layer

_QUAD = 4
_MULTIPLE = 8

Constants = Mapping[str, NDArray[np.generic]]


@dataclass(frozen=True, slots=True)
class _Cut:
    """A tensor that a widened layer writes: its first channels go on under its name."""

    wide: str
    channels: int
    axis: int


def widen(model: ModelProto, layers: Sequence[Layer]) -> tuple[ModelProto, tuple[Layer, ...]]:
    """Return the graph with such layers on a multiple of 8 channels, and its layers.

    The channels that are added have weights and biases of 0, and a Slice behind the layer drops them: every other
    operator reads what it read.

    Args:
        model: A convolution without groups, a depthwise convolution or a linear layer for each of `layers`.
        layers: What MNN runs in int8.
    """
    stored = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
    shapes = _shapes(model)
    known = {layer.node: layer for layer in layers}
    constants: dict[str, NDArray[np.generic]] = {}
    cuts: dict[str, _Cut] = {}
    wider: dict[str, Layer] = {}
    nodes: list[NodeProto] = []
    for node in model.graph.node:
        copy = NodeProto()
        copy.CopyFrom(node)
        nodes.append(copy)
        layer = known.get(node.name)
        if layer and _is_hit(node, stored, shapes.get(node.output[0], ())):
            channels = _channels(node, stored)
            cuts[layer.written] = _Cut(f"{layer.written}__wide", channels, 1 if node.op_type == "Conv" else -1)
            constants |= _pad(copy, channels, stored)
            wider[node.name] = replace(layer, written=cuts[layer.written].wide, trained_channels=channels)
        if node.output[0] in cuts:
            nodes += _cut(copy, cuts[node.output[0]], constants)
    rewritten = ModelProto()
    rewritten.CopyFrom(model)
    del rewritten.graph.node[:]
    rewritten.graph.node.extend(nodes)
    rewritten.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    return rewritten, tuple(wider.get(layer.node, layer) for layer in layers)


def padded_scales(scales: Sequence[float], layer: Layer) -> list[float]:
    """Return the scales of a weight, one for each channel of the operator; added channels have the last one."""
    added = padded(len(scales)) - len(scales) if len(scales) == layer.trained_channels else 0
    return [*scales, *[scales[-1]] * added]


def padded(channels: int) -> int:
    """Return the next multiple of 8.

    Example:
        >>> padded(10), padded(16)
        (16, 16)
    """
    return -(-channels // _MULTIPLE) * _MULTIPLE


def without_added_channels(op: MnnOp, layer: Layer) -> MnnOp:
    """Return an operator of a file with the weights, scales and biases of the trained channels alone."""
    count = layer.trained_channels
    if count is None or op.weight_scales is None:
        return op
    weights, bias = op.weights, op.bias
    return replace(
        op,
        weight_scales=op.weight_scales[:count],
        weights=None if weights is None else weights.reshape(len(op.weight_scales), -1)[:count].reshape(-1),
        bias=None if bias is None else bias[:count],
    )


def _shapes(model: ModelProto) -> dict[str, tuple[int, ...]]:
    """Return the shapes of all tensors that have a known one."""
    inferred = onnx.shape_inference.infer_shapes(model).graph
    found = {}
    for one in (*inferred.value_info, *inferred.output):
        dims = one.type.tensor_type.shape.dim
        if all(dim.HasField("dim_value") for dim in dims):
            found[one.name] = tuple(int(dim.dim_value) for dim in dims)
    return found


def _is_hit(node: NodeProto, stored: Constants, shape: Sequence[int]) -> bool:
    """Return True for an odd number of quads and of pixels; a layer of unknown shape is taken for one."""
    group = next((int(one.i) for one in node.attribute if one.name == "group"), 1)
    channels = _channels(node, stored)
    quads = -(-channels // _QUAD)
    pixels = int(np.prod(shape, dtype=np.int64)) // channels if shape else 1
    return group == 1 and quads % 2 == 1 and pixels % 2 == 1


def _channels(node: NodeProto, stored: Constants) -> int:
    return int(stored[node.input[1]].shape[_axis(node)])


def _axis(node: NodeProto) -> int:
    """Return the axis of a weight that counts output channels."""
    has_rows = node.op_type == "Conv" or any(one.name == "transB" and one.i for one in node.attribute)
    return 0 if has_rows else -1


def _pad(node: NodeProto, channels: int, stored: Constants) -> dict[str, NDArray[np.generic]]:
    """Let a layer read a weight and a bias with zeros behind them; return those."""
    constants = {}
    for place, axis in ((1, _axis(node)), (2, -1)):
        if place < len(node.input):
            value, name = stored[node.input[place]], f"{node.output[0]}__wide_{place}"
            widths = [(0, 0)] * value.ndim
            widths[axis] = (0, padded(channels) - channels)
            constants[name] = np.pad(value, widths)
            node.input[place] = name
    return constants


def _cut(node: NodeProto, cut: _Cut, constants: dict[str, NDArray[np.generic]]) -> Iterator[NodeProto]:
    """Let a layer, or the clamp behind it, write the wide tensor; yield what writes the trained channels."""
    name = node.output[0]
    ends = {f"{name}__{part}": value for part, value in (("start", 0), ("end", cut.channels), ("axis", cut.axis))}
    constants.update({end: np.array([value], np.int64) for end, value in ends.items()})
    node.output[0] = cut.wide
    yield helper.make_node("Slice", [cut.wide, *ends], [name], name=name)
