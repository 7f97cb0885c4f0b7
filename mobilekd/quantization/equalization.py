"""Cross-layer equalization (Nagel et al. 2019, arXiv 1906.04721, section 4.1) for weights with a scale a channel.

Between a layer and the depthwise one behind it, with nothing but ReLU between them, channel i may be divided by any
s_i > 0 on the one side and multiplied on the other. The paper levels the ranges of the weights, for weights with one
scale a layer. Here each channel of either weight has a scale of its own, so their ranges cost nothing; what has one
scale is the activation between the layers, and its channels are levelled. (On a MobileNetV2 the paper's choice made
the answers worse, 21.5 to 14.0 dB, and so did levelling in front of pointwise layers, 21.7 to 18.0 dB, where what one
side gains the other loses; `python -m benchmarks.post_training` has the figures of this one.)
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node

from mobilekd.quantization.folding import set_layer
from mobilekd.quantization.graph_tools import argument, aten, constant, source

_LAYERS = {aten.conv2d.default, aten.linear.default}
_LARGEST_FACTOR = 1024.0
_HEADROOM = 2.0
"""A levelled channel fills half of the range: images that calibration has not seen go further."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two layers; `between` is what the second reads, the first or the ReLU behind it. The first feeds it alone."""

    first: Node
    between: Node
    second: Node


def equalize(model: GraphModule, images: Tensor) -> int:
    """Level the channels in front of each depthwise layer, in place; what is computed on the images stays.

    Every channel gets half the range of the largest, and none becomes smaller, so that a ReLU6 between the two clips
    what it clipped before.

    Args:
        model: Lowered.
        images: [n, channels, height, width]; their activations are levelled.

    Returns:
        How many pairs of layers there are.
    """
    pairs = list(_pairs(model))
    ranges = _Ranges(model, {pair.between for pair in pairs}).of(images)
    for pair in pairs:
        _level(model, pair, ranges[pair.between])
    model.recompile()
    return len(pairs)


class _Ranges(Interpreter):
    """Runs a graph and keeps the largest absolute value of each channel of some tensors."""

    def __init__(self, model: GraphModule, wanted: set[Node]) -> None:
        super().__init__(model)
        self._wanted = wanted
        self._found: dict[Node, Tensor] = {}

    def of(self, images: Tensor) -> dict[Node, Tensor]:
        with torch.no_grad():
            self.run(images, enable_io_processing=False)
        return self._found

    def run_node(self, n: Node) -> object:
        """Compute one node."""
        value = super().run_node(n)
        if n in self._wanted and isinstance(value, Tensor):
            self._found[n] = value.abs().amax(dim=[axis for axis in range(value.ndim) if axis != 1])
        return value


def _pairs(model: GraphModule) -> Iterator[Pair]:
    for node in model.graph.nodes:
        if node.target not in _LAYERS or len(node.users) != 1 or constant(model, node.args[1]) is None:
            continue
        between, reader = node, next(iter(node.users))
        if _is_relu(reader) and len(reader.users) == 1:
            between, reader = reader, next(iter(reader.users))
        if _is_depthwise(model, reader) and source(reader) is between:
            yield Pair(node, between, reader)


def _is_relu(node: Node) -> bool:
    if node.target in (aten.relu.default, aten.relu6.default):
        return True
    return node.target is aten.hardtanh.default and tuple(argument(node, at, None) for at in (1, 2)) == (0.0, 6.0)


def _is_depthwise(model: GraphModule, layer: Node) -> bool:
    weight = constant(model, layer.args[1]) if layer.target is aten.conv2d.default else None
    return weight is not None and weight.shape[0] == argument(layer, 6, 1) and weight.shape[1] == 1


def _level(model: GraphModule, pair: Pair, ranges: Tensor) -> None:
    first, second = constant(model, pair.first.args[1]), constant(model, pair.second.args[1])
    bias, second_bias = constant(model, pair.first.args[2]), constant(model, pair.second.args[2])
    assert first is not None
    assert second is not None
    assert bias is not None
    assert second_bias is not None
    factor = (_HEADROOM * ranges / ranges.max().clamp_min(1e-12)).clamp(1 / _LARGEST_FACTOR, 1.0)
    set_layer(model, pair.first, first / _along(factor, first), bias / factor)
    set_layer(model, pair.second, second * _along(factor, second), second_bias)


def _along(factor: Tensor, weight: Tensor) -> Tensor:
    return factor.reshape(-1, *[1] * (weight.ndim - 1))
