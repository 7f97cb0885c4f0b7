"""Cross-layer equalization (Nagel et al. 2019, arXiv 1906.04721, section 4.1) for weights with a scale a channel.

Between two layers with nothing but ReLU between them, channel i may be divided by any s_i > 0 on the one side and
multiplied on the other. The paper levels the ranges of the weights, for weights with one scale a layer. Here each
output channel has a scale of its own, so those ranges cost nothing; what has one scale is the activation between the
layers, and its channels are levelled. (On a MobileNetV2 the paper's choice made the answers worse: 21.5 to 14.0 dB;
`python -m benchmarks.post_training` has the figures of this one.)
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


@dataclass(frozen=True, slots=True)
class Pair:
    """Two layers; `between` is what the second reads, the first or the ReLU behind it. The first feeds it alone."""

    first: Node
    between: Node
    second: Node


def equalize(model: GraphModule, images: Tensor) -> int:
    """Level the channels between each two layers, in place; what is computed on the images stays.

    In front of a depthwise layer, whose weights have a scale for each of the channels, every channel gets the range of
    the largest. In front of any other, s_i = sqrt(r_i / w_i) (equation 11 of the paper), r the range of activation i
    and w the largest weight that reads it: what one side gains the other does not lose. No channel grows beyond the
    range of the largest, so that a ReLU6 between the two clips what it clipped before.

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
        if reader.target in _LAYERS and source(reader) is between and _takes_factors(model, reader):
            yield Pair(node, between, reader)


def _is_relu(node: Node) -> bool:
    if node.target in (aten.relu.default, aten.relu6.default):
        return True
    return node.target is aten.hardtanh.default and tuple(argument(node, at, None) for at in (1, 2)) == (0.0, 6.0)


def _takes_factors(model: GraphModule, layer: Node) -> bool:
    weight = constant(model, layer.args[1])
    return weight is not None and (_groups(layer) == 1 or _is_depthwise(weight, layer))


def _groups(layer: Node) -> int:
    return int(argument(layer, 6, 1)) if layer.target is aten.conv2d.default else 1  # type: ignore[call-overload]


def _is_depthwise(weight: Tensor, layer: Node) -> bool:
    return weight.shape[0] == _groups(layer) and weight.shape[1] == 1


def _level(model: GraphModule, pair: Pair, ranges: Tensor) -> None:
    first, second = constant(model, pair.first.args[1]), constant(model, pair.second.args[1])
    bias, second_bias = constant(model, pair.first.args[2]), constant(model, pair.second.args[2])
    assert first is not None
    assert second is not None
    assert bias is not None
    assert second_bias is not None
    is_depthwise = _groups(pair.second) > 1
    top = ranges.max().clamp_min(1e-12)
    if is_depthwise:
        factor = ranges / top
    else:
        readers = second.transpose(0, 1).reshape(second.shape[1], -1).abs().amax(dim=1).clamp_min(1e-12)
        factor = (ranges / readers).sqrt()
        factor = factor * (ranges / factor.clamp_min(1e-12)).max() / top  # the largest range stays the largest
    factor = factor.clamp(1 / _LARGEST_FACTOR, _LARGEST_FACTOR)
    set_layer(model, pair.first, first / _along(factor, first, 0), bias / factor)
    set_layer(model, pair.second, second * _along(factor, second, 0 if is_depthwise else 1), second_bias)


def _along(factor: Tensor, weight: Tensor, axis: int) -> Tensor:
    view = [1] * weight.ndim
    view[axis] = -1
    return factor.reshape(view)
