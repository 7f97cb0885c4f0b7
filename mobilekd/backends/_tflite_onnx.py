"""The ONNX graph as onnx2tf converts it best."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def prepare(source: Path, result: Path) -> None:
    """Write a copy of a float graph in which a mean over the whole map is an AveragePool.

    onnx2tf 2.6.9 lowers ReduceMean and GlobalAveragePool in NCHW, with a
    TRANSPOSE before each and an unfused RELU (17 TRANSPOSE in MobileNetV3-small);
    AveragePool stays in NHWC.
    """
    import onnx

    model = onnx.shape_inference.infer_shapes(onnx.load(source))
    shapes = _shapes(model)
    constants = {
        one.name: onnx.numpy_helper.to_array(one).tolist() for one in model.graph.initializer if one.dims == [2]
    }
    for node in model.graph.node:
        shape = shapes.get(node.input[0], ()) if node.input else ()
        if len(shape) == 4 and _is_map_mean(node, constants):
            pool = onnx.helper.make_node("AveragePool", node.input[:1], node.output, name=node.name)
            pool.attribute.append(onnx.helper.make_attribute("kernel_shape", shape[2:]))
            node.CopyFrom(pool)
    _spell_out_hard_sigmoids(model)
    onnx.save(model, result)


def _spell_out_hard_sigmoids(model: Any) -> None:
    """Write HardSigmoid as clip(x + 3, 0, 6) / 6.

    onnx2tf lowers it to RELU_0_TO_1, which has no int8 form in
    ai_edge_quantizer 0.10; ADD takes RELU6 as its fused activation.
    """
    from onnx import helper

    nodes, names = [], ("three", "zero", "six", "sixth")
    constants = [f"mobilekd/hard_sigmoid/{name}" for name in names]
    for node in model.graph.node:
        slope = {one.name: one.f for one in node.attribute}
        is_sixth = abs(slope.get("alpha", 0.2) - 1 / 6) < 1e-6 and slope.get("beta", 0.5) == 0.5
        if node.op_type != "HardSigmoid" or not is_sixth:
            nodes.append(node)
            continue
        three, zero, six, sixth = constants
        shifted, clipped = f"{node.output[0]}/shifted", f"{node.output[0]}/clipped"
        nodes.append(helper.make_node("Add", [node.input[0], three], [shifted], name=shifted))
        nodes.append(helper.make_node("Clip", [shifted, zero, six], [clipped], name=clipped))
        nodes.append(helper.make_node("Mul", [clipped, sixth], node.output, name=node.output[0]))
    if len(nodes) == len(model.graph.node):
        return
    values = zip(constants, (3.0, 0.0, 6.0, 1 / 6), strict=True)
    model.graph.initializer.extend(helper.make_tensor(name, 1, [], [value]) for name, value in values)
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _is_map_mean(node: Any, constants: Mapping[str, list[int]]) -> bool:
    """Return whether a node is the mean over height and width that keeps both as 1."""
    if node.op_type == "GlobalAveragePool":
        return True
    if node.op_type != "ReduceMean":
        return False
    attributes = {one.name: one for one in node.attribute}
    if "keepdims" in attributes and not attributes["keepdims"].i:
        return False
    axes = list(attributes["axes"].ints) if "axes" in attributes else constants.get((*node.input, "")[1], [])
    return sorted(axis % 4 for axis in axes) == [2, 3]


def _shapes(model: Any) -> dict[str, tuple[int, ...]]:
    known = (*model.graph.value_info, *model.graph.input, *model.graph.output)
    return {one.name: tuple(size.dim_value for size in one.type.tensor_type.shape.dim) for one in known}
