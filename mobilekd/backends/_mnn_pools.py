"""Pooling that MNN 3.6.1 gets wrong in int8, written so that it computes in float."""

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper, numpy_helper

from mobilekd.quant_table import QuantTable, TensorQuant

_NOT_NEGATIVE = frozenset({"Relu", "Sigmoid", "HardSigmoid", "Softmax"})
_POOLS = ("AveragePool", "GlobalAveragePool", "MaxPool")
_MOVES = frozenset({"Concat", "Gather", "MaxPool", "Slice", "Split", "Identity"})


def pools_in_float(model: ModelProto, table: QuantTable) -> ModelProto:
    """Return the graph with pools that MNN computes in float where its int8 kernels are wrong.

    - GlobalAveragePool and AveragePool cut off the fraction, in steps of the input: 0.5 of a step too low on average.
    - MaxPool on x86 compares integers moved by 128 as if they were signed: right for an input without negative
      values alone.

    A pool whose two ends have one scale runs in int8. Between a division by the scale and a multiplication it has no
    scale at either end.
    """
    quants = table.by_name()
    constants: dict[str, NDArray[np.generic]] = {}
    positive: set[str] = set()
    nodes: list[NodeProto] = []
    stored = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
    for node in model.graph.node:
        if _is_not_negative(node, positive, stored):
            positive.update(node.output)
        if _must_be_float(node, quants, positive):
            nodes += _between_scales(node, quants[node.input[0]], constants)
        else:
            nodes.append(node)
    return _with(model, nodes, constants)


def _is_not_negative(node: NodeProto, positive: set[str], stored: Mapping[str, NDArray[np.generic]]) -> bool:
    if node.op_type == "Clip":
        return len(node.input) > 1 and node.input[1] in stored and bool(stored[node.input[1]].item() >= 0)
    sources = [name for name in node.input if name and name not in stored]
    return node.op_type in _NOT_NEGATIVE or (node.op_type in _MOVES and positive.issuperset(sources))


def _must_be_float(node: NodeProto, quants: Mapping[str, TensorQuant], positive: set[str]) -> bool:
    if node.op_type not in _POOLS or not quants.keys() >= {node.input[0], node.output[0]}:
        return False
    has_one_scale = quants[node.input[0]].scale == quants[node.output[0]].scale
    return has_one_scale and (node.op_type != "MaxPool" or node.input[0] not in positive)


def _between_scales(
    node: NodeProto, quant: TensorQuant, constants: dict[str, NDArray[np.generic]]
) -> Iterator[NodeProto]:
    output = node.output[0]
    names = {part: f"{output}__pool_{part}" for part in ("input", "output", "step", "per_step")}
    constants[names["step"]] = np.asarray(quant.scale[0], np.float32)
    constants[names["per_step"]] = np.asarray(1 / quant.scale[0], np.float32)
    pool = NodeProto()
    pool.CopyFrom(node)
    pool.input[0], pool.output[0] = names["input"], names["output"]
    yield helper.make_node("Mul", [node.input[0], names["per_step"]], [names["input"]], name=names["input"])
    yield pool
    yield helper.make_node("Mul", [names["output"], names["step"]], [output], name=output)


def _with(model: ModelProto, nodes: list[NodeProto], constants: Mapping[str, NDArray[np.generic]]) -> ModelProto:
    rewritten = ModelProto()
    rewritten.CopyFrom(model)
    del rewritten.graph.node[:]
    rewritten.graph.node.extend(nodes)
    rewritten.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()
    )
    return rewritten
