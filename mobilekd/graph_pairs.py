"""Q/DQ pairs that follow each other in an ONNX graph: equal ones are merged, others get an operator between them."""

import numpy as np
from onnx import ModelProto, helper

from mobilekd.graph import index_qdq


def merge_repeated_pairs(model: ModelProto) -> ModelProto:
    """Return the QDQ model without a Q/DQ pair that directly follows one of the same scale and zero point.

    The simplifier leaves two where it took out an operator between them that did nothing.
    """
    index = index_qdq(model)
    quants = {node.output[0]: node for node in model.graph.node if node.op_type == "QuantizeLinear"}
    same: dict[str, str] = {}
    for node in model.graph.node:
        before = index.maker.get(quants[node.input[0]].input[0]) if node.input[0] in quants else None
        if before is None or before.op_type != "DequantizeLinear" or before.input[0] not in quants:
            continue
        pairs = zip(before.input[1:], quants[node.input[0]].input[1:], strict=True)
        if all(np.array_equal(index.constants[first], index.constants[second]) for first, second in pairs):
            same[node.output[0]] = same.get(before.output[0], before.output[0])
    outputs = {one.name for one in model.graph.output}
    for node in model.graph.node:
        node.input[:] = [same.get(name, name) for name in node.input]
    read = outputs.union(*(node.input for node in model.graph.node))
    for node in [one for one in model.graph.node if one.output[0] in same and one.output[0] not in read]:
        model.graph.node.remove(node)
    read = outputs.union(*(node.input for node in model.graph.node))
    for quant in [one for name, one in quants.items() if name not in read]:
        model.graph.node.remove(quant)
    return model


def separate_pairs(model: ModelProto) -> ModelProto:
    """Return the QDQ model with an Identity between a DequantizeLinear and a QuantizeLinear of another scale.

    The tensor is rounded twice, and each rounding needs a name in the table. The simplifier leaves such a pair where
    it took out an operator that does nothing.
    """
    makers = {name: node for node in model.graph.node for name in node.output}
    nodes = []
    for node in model.graph.node:
        source = makers.get(node.input[0]) if node.op_type == "QuantizeLinear" else None
        if source is not None and source.op_type == "DequantizeLinear":
            again = f"{node.output[0]}_again"
            nodes.append(helper.make_node("Identity", [node.input[0]], [again], name=again))
            node.input[0] = again
        nodes.append(node)
    if len(nodes) > len(model.graph.node):
        kept = [type(node).FromString(node.SerializeToString()) for node in nodes]
        del model.graph.node[:]
        model.graph.node.extend(kept)
    return model
