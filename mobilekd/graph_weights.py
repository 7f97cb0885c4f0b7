"""Weights of a QDQ graph: one initializer a layer, named for it."""

from onnx import ModelProto, NodeProto, TensorProto

from mobilekd.graph import WEIGHTED_OPS, index_qdq


def name_weights(model: ModelProto) -> ModelProto:
    """Return the QDQ model with weights named for their layer, each its own: "features.0.weight", "features.0.bias"."""
    _unshare(model)
    index = index_qdq(model)
    stored = {one.name for one in model.graph.initializer}
    renamed: dict[str, str] = {}
    for node in model.graph.node:
        weight = index.weights[node.input[1]].input[0] if node.input[1:] and node.input[1] in index.weights else ""
        weight = weight or next((name for name in node.input[1:2] if name in stored), "")  # of a layer kept in float
        if node.op_type not in WEIGHTED_OPS or not weight:
            continue
        bias = node.input[2] if len(node.input) > 2 else ""
        layer = bias.removesuffix("_bias").removesuffix(".weight").removesuffix(".bias") or node.name
        renamed[weight] = f"{layer}.weight"
        if bias:
            renamed[bias] = f"{layer}.bias"
    for one in model.graph.initializer:
        one.name = renamed.get(one.name, one.name)
    for node in model.graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
    return model


def _unshare(model: ModelProto) -> None:
    """Give every reader of a shared weight or bias a copy.

    The simplifier stores equal initializers once: the integers of depthwise 1x1 layers are all 127, and zero biases
    are equal. Their scales are not, and the table has an entry for each.
    """
    stored = {one.name: one for one in model.graph.initializer}
    taken: set[str] = set()
    for node in model.graph.node:
        for at in _own_inputs(node, stored):
            name = node.input[at]
            if name in taken:
                copied = model.graph.initializer.add()
                copied.CopyFrom(stored[name])
                copied.name = node.input[at] = f"{node.output[0]}_own_{at}"
            taken.add(node.input[at])


def _own_inputs(node: NodeProto, stored: dict[str, TensorProto]) -> list[int]:
    if node.op_type == "DequantizeLinear":
        return [0] if node.input[0] in stored else []
    if node.op_type in WEIGHTED_OPS:
        return [at for at in (2,) if len(node.input) > at and node.input[at] in stored]
    return []
