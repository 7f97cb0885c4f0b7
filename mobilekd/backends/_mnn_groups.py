"""Grouped convolutions as what MNN has in int8: its converter splits them itself, and leaves the parts float."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper, numpy_helper

from mobilekd.backends._mnn_layers import Layer


class _Splitter:
    """One pass over a graph; `constants` and `dropped` are what it adds and what it makes superfluous."""

    def __init__(self, model: ModelProto, layers: Sequence[Layer]) -> None:
        self._stored = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
        self._layers = {layer.node: layer for layer in layers}
        self._clamps = {node.input[0]: node for node in model.graph.node if node.op_type in ("Relu", "Clip")}
        self.constants: dict[str, NDArray[np.generic]] = {}
        self.dropped: set[str] = set()
        self.layers: list[Layer] = []

    def rewrite(self, node: NodeProto) -> Iterator[NodeProto]:
        layer = self._layers.get(node.name)
        groups = _groups(node)
        if node.output[0] in self.dropped:
            return
        if layer is None:
            yield node
            return
        weight = self._stored[layer.weight]
        if groups == 1 or weight.shape[:2] == (groups, 1):
            self.layers.append(layer)
            yield node
        elif weight.shape[1] == 1:
            self.layers.append(layer)
            yield from self._repeat(node, layer, groups, weight.shape[0])
        else:
            yield from self._split(node, layer, groups)

    def _repeat(self, node: NodeProto, layer: Layer, groups: int, channels: int) -> Iterator[NodeProto]:
        """Yield a depthwise convolution of as many channels as it writes, which reads each input channel repeatedly."""
        repeated, order = f"{layer.output}__repeated", f"{layer.output}__order"
        self.constants[order] = np.repeat(np.arange(groups, dtype=np.int64), channels // groups)
        yield helper.make_node("Gather", [node.input[0], order], [repeated], name=repeated, axis=1)
        copy = _copy(node, groups=channels)
        copy.input[0] = repeated
        yield copy

    def _split(self, node: NodeProto, layer: Layer, groups: int) -> Iterator[NodeProto]:
        """Yield one convolution a group, each with the clamp behind it, between a Split and a Concat."""
        clamp = self._clamps[node.output[0]] if layer.output != node.output[0] else None
        sources = [f"{layer.output}__input_{at}" for at in range(groups)]
        parts = [f"{layer.output}__group_{at}" for at in range(groups)]
        sizes = f"{layer.output}__sizes"
        inputs = self._stored[layer.weight].shape[1]
        self.constants[sizes] = np.full(groups, inputs, np.int64)
        yield helper.make_node("Split", [node.input[0], sizes], sources, name=sizes, axis=1)
        rows = self._stored[layer.weight].shape[0] // groups
        for at, (source, part) in enumerate(zip(sources, parts, strict=True)):
            copy = _copy(node, groups=1)
            copy.name = copy.output[0] = f"{part}__sum" if clamp else part
            copy.input[0] = source
            for place in range(1, len(node.input)):
                copy.input[place] = f"{part}__{place}"
                whole = self._stored[node.input[place]]
                self.constants[copy.input[place]] = whole[at * rows : (at + 1) * rows]
            yield copy
            if clamp:
                behind = _copy(clamp, groups=1)
                behind.input[0], behind.output[0], behind.name = copy.output[0], part, part
                yield behind
            span = (at * rows, (at + 1) * rows)
            self.layers.append(replace(layer, node=copy.name, written=part, channels=span))
        if clamp:
            self.dropped.add(layer.output)
        yield helper.make_node("Concat", parts, [layer.output], name=layer.output, axis=1)


def write_out_groups(model: ModelProto, layers: Sequence[Layer]) -> tuple[ModelProto, tuple[Layer, ...]]:
    """Return the graph without grouped int8 convolutions, and its layers; a split layer has several.

    A depthwise convolution stays; one that gives several channels for each of its input becomes a plain one on
    repeated channels.
    """
    splitter = _Splitter(model, layers)
    nodes = [made for node in model.graph.node for made in splitter.rewrite(node)]
    rewritten = ModelProto()
    rewritten.CopyFrom(model)
    del rewritten.graph.node[:]
    rewritten.graph.node.extend(nodes)
    for name, value in splitter.constants.items():
        rewritten.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
    return rewritten, tuple(splitter.layers)


def _groups(node: NodeProto) -> int:
    return next((int(one.i) for one in node.attribute if one.name == "group"), 1)


def _copy(node: NodeProto, *, groups: int) -> NodeProto:
    copy = NodeProto()
    copy.CopyFrom(node)
    for one in copy.attribute:
        if one.name == "group":
            one.i = groups
    return copy
