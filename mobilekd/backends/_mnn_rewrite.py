"""The graph that is handed to MNN's converter: the trained one, with what MNN would round otherwise written out."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper, numpy_helper

from mobilekd.backends._mnn_clamps import clamps_as_trained
from mobilekd.backends._mnn_columns import widen
from mobilekd.backends._mnn_groups import write_out_groups
from mobilekd.backends._mnn_layers import Layer
from mobilekd.backends._mnn_pools import pools_in_float
from mobilekd.quant_table import QuantTable, TensorQuant

BINARY = frozenset({"Add", "Sub", "Mul"})
"""Operators of two tensors whose int8 kernel in MNN adds or multiplies in float32 and rounds once."""

_MOVES = frozenset(
    {
        "Concat",
        "DepthToSpace",
        "Expand",
        "Flatten",
        "Gather",
        "Identity",
        "MaxPool",
        "Pad",
        "Reshape",
        "Slice",
        "SpaceToDepth",
        "Split",
        "Squeeze",
        "Tile",
        "Transpose",
        "Unsqueeze",
    }
)
_UNROUNDED = "__unrounded"


def for_converter(
    stripped: ModelProto, table: QuantTable, layers: Sequence[Layer]
) -> tuple[ModelProto, tuple[Layer, ...]]:
    """Return a graph that MNN computes as the table says, and its layers; names of the table stay.

    Args:
        stripped: The trained graph without Q/DQ; it is changed.
        table: Scales.
        layers: What MNN runs in int8.
    """
    model, layers = clamps_as_trained(pools_in_float(stripped, table), table, layers)
    model = _biases_that_may_be_cut_off(_round_between_floats(model, table, layers), table)
    return widen(*write_out_groups(model, layers))


def _biases_that_may_be_cut_off(model: ModelProto, table: QuantTable) -> ModelProto:
    """Return the graph with biases of depthwise convolutions a quarter of a step of the accumulator farther from 0.

    MNN 3.6.1 turns such a bias to int32 by cutting off the fraction (CPUConvolution.cpp, updateInputOutputScale): a
    quotient of 41.999996 becomes 41. Every other reader rounds, and finds the trained integer too.
    """
    grids = {one.name: np.asarray(one.scale, np.float32) for one in table.with_role("bias")}
    shapes = {one.name: tuple(one.dims) for one in model.graph.initializer}
    depthwise = {
        node.input[2]
        for node in model.graph.node
        if node.op_type == "Conv" and len(node.input) > 2 and shapes.get(node.input[1], (0, 0))[1] == 1
    }
    for one in model.graph.initializer:
        if one.name in depthwise & grids.keys():
            steps = np.rint(numpy_helper.to_array(one).astype(np.float64) / grids[one.name])
            moved = ((steps + 0.25 * np.sign(steps)) * grids[one.name]).astype(np.float32)
            one.CopyFrom(numpy_helper.from_array(moved, one.name))
    return model


def _round_between_floats(model: ModelProto, table: QuantTable, layers: Sequence[Layer]) -> ModelProto:
    """Return the graph with a tensor that one float operator writes and another reads rounded in between.

    An int8 kernel rounds what it reads and writes. Between two float operators (a hard-swish and a mean, a softmax
    and a product) MNN hands on the float value, and the table's rounding would be left out.
    """
    quants = table.by_name()
    needed = set(_unrounded(model, quants, {layer.node for layer in layers}))
    inputs = {one.name for one in model.graph.input}
    constants: dict[str, NDArray[np.generic]] = {}
    nodes: list[NodeProto] = []
    for name in sorted(needed & inputs):
        nodes += _rounding(name, name + "__rounded", quants[name], constants)
    for node in model.graph.node:
        node.input[:] = [name + "__rounded" if name in needed & inputs else name for name in node.input]
        written = [name for name in node.output if name in needed]
        node.output[:] = [name + _UNROUNDED if name in needed else name for name in node.output]
        nodes.append(node)
        for name in written:
            nodes += _rounding(name + _UNROUNDED, name, quants[name], constants)
    rewritten = ModelProto()
    rewritten.CopyFrom(model)
    del rewritten.graph.node[:]
    rewritten.graph.node.extend(nodes)
    rewritten.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    return rewritten


def _unrounded(model: ModelProto, quants: Mapping[str, TensorQuant], layers: set[str]) -> Iterator[str]:
    """Yield the tensors of the table that MNN would hand from a float operator to another unrounded."""
    readers: dict[str, list[NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    makers = {name: node for node in model.graph.node for name in node.output}
    int8 = {id(node) for node in model.graph.node if node.name in layers or _is_int8_binary(node, quants, readers)}
    moves = {id(node) for node in model.graph.node if node.op_type in _MOVES and _keeps_scale(node, quants)}
    rounded: set[str] = set()
    for node in model.graph.node:
        source = makers.get(node.input[0]) if node.op_type in ("Relu", "Clip") else None
        is_fused = source is not None and id(source) in int8 and node.input[0] not in quants
        is_moved = id(node) in moves and rounded.issuperset(name for name in node.input if name in quants)
        if id(node) in int8 or is_fused or is_moved:
            rounded.update(node.output)
    outputs = {one.name for one in model.graph.output}
    for name in (*(one.name for one in model.graph.input), *makers):
        # What moves an unrounded tensor hands on the question to those that read the moved one.
        is_read = name in outputs or any(id(node) not in int8 | moves for node in readers.get(name, ()))
        if name in quants and name not in rounded and is_read:
            yield name


def _is_int8_binary(
    node: NodeProto, quants: Mapping[str, TensorQuant], readers: Mapping[str, Sequence[NodeProto]]
) -> bool:
    """Return True if MNN has an int8 kernel: all tensors have scales; a Relu behind it is fused."""
    if node.op_type not in BINARY or not quants.keys() >= set(node.input):
        return False
    after = readers.get(node.output[0], ())
    is_fused = len(after) == 1 and after[0].op_type == "Relu" and after[0].output[0] in quants
    return node.output[0] in quants or is_fused


def _keeps_scale(node: NodeProto, quants: Mapping[str, TensorQuant]) -> bool:
    """Return True if all tensors that a node moves have one scale."""
    moved = {quants[name].scale for name in (*node.input, *node.output) if name in quants}
    return len(moved) == 1 and quants.keys() >= set(node.output)


def _rounding(
    source: str, output: str, quant: TensorQuant, constants: dict[str, NDArray[np.generic]]
) -> Iterator[NodeProto]:
    """Yield what rounds to the int8 grid in float: divide, round, clip, multiply.

    MNN's own pair for this (QuantizeLinear and DequantizeLinear of ONNX) swaps batch and channels of every map, and
    fails on a tensor of three dimensions (3.6.1).
    """
    parts = {"step": quant.scale[0], "per_step": 1 / quant.scale[0], "low": quant.quant_min, "high": quant.quant_max}
    names = {part: f"{output}__{part}" for part in parts}
    constants.update({names[part]: np.asarray(value, np.float32) for part, value in parts.items()})
    steps = [f"{output}__{part}" for part in ("scaled", "integer", "limited")]
    yield helper.make_node("Mul", [source, names["per_step"]], [steps[0]], name=steps[0])
    yield helper.make_node("Round", [steps[0]], [steps[1]], name=steps[1])
    yield helper.make_node("Clip", [steps[1], names["low"], names["high"]], [steps[2]], name=steps[2])
    yield helper.make_node("Mul", [steps[2], names["step"]], [output], name=output)
