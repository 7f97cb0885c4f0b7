"""Small pure tools on ONNX graphs: canonical form, a QDQ graph's quantization table, and the graph without Q/DQ."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper, numpy_helper

from mobilekd.errors import StageError
from mobilekd.quant_table import QuantTable, TensorQuant

WEIGHTED_OPS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_IR_VERSION = 10


@dataclass(frozen=True, slots=True)
class QdqIndex:
    """Where everything is in a QDQ graph.

    Attributes:
        constants: Initializers by name.
        maker: The node that writes a tensor.
        rounded: Output of a DequantizeLinear -> the tensor that was rounded (the input of its QuantizeLinear).
        weights: Output of a DequantizeLinear on an initializer -> that node.
    """

    constants: Mapping[str, NDArray[np.generic]]
    maker: Mapping[str, NodeProto]
    rounded: Mapping[str, str]
    weights: Mapping[str, NodeProto]


def index_qdq(model: ModelProto) -> QdqIndex:
    """Return an index of a QDQ graph; arrays are copies."""
    constants = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
    maker = {name: node for node in model.graph.node for name in node.output}
    rounded: dict[str, str] = {}
    weights: dict[str, NodeProto] = {}
    for node in model.graph.node:
        if node.op_type != "DequantizeLinear":
            continue
        if node.input[0] in constants:
            weights[node.output[0]] = node
        else:
            rounded[node.output[0]] = maker[node.input[0]].input[0]
    return QdqIndex(constants, maker, rounded, weights)


def load(path: Path) -> ModelProto:
    """Return a model read from a file."""
    return onnx.load(str(path))


def save(model: ModelProto, path: Path) -> None:
    """Write a checked model; equal models give equal bytes."""
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString(deterministic=True))


def canonicalize(model: ModelProto) -> ModelProto:
    """Return the model without what does not compute: source lines, paths, doc strings, stale shapes."""
    model.ir_version = _IR_VERSION
    model.doc_string = ""
    model.graph.name = "student"
    del model.metadata_props[:]
    del model.graph.metadata_props[:]
    del model.graph.value_info[:]
    for part in (*model.graph.node, *model.graph.initializer, *model.graph.input, *model.graph.output):
        del part.metadata_props[:]
        part.doc_string = ""
    return model


def pool_globally(model: ModelProto) -> ModelProto:
    """Return the model with ReduceMean over height and width, dimensions kept, as GlobalAveragePool.

    The two compute the same; converters to NHWC leave transposes around ReduceMean, and only the
    pool has an int8 kernel in ONNX Runtime.
    """
    constants = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "ReduceMean" and _is_spatial_mean(node, constants):
            node.op_type = "GlobalAveragePool"
            del node.input[1:]
            del node.attribute[:]
    return model


def _is_spatial_mean(node: NodeProto, constants: Mapping[str, NDArray[np.generic]]) -> bool:
    attributes = {one.name: helper.get_attribute_value(one) for one in node.attribute}
    if len(node.input) < 2 or node.input[1] not in constants or not attributes.get("keepdims", 1):
        return False
    axes = sorted(int(axis) for axis in constants[node.input[1]].reshape(-1))
    return axes in ([2, 3], [-2, -1])


def snap_biases(model: ModelProto) -> ModelProto:
    """Return the QDQ model with every bias moved to the integer grid of its accumulator.

    The grid is input scale x weight scale. All int8 kernels add the bias as int32 on this grid; with the
    rounding done once, here, no two runtimes can round it differently.

    Raises:
        StageError: A bias does not fit int32.
    """
    index = index_qdq(model)
    snapped: dict[str, NDArray[np.float32]] = {}
    for node in model.graph.node:
        grid = bias_grid(node, index)
        if grid is None:
            continue
        steps = np.rint(index.constants[node.input[2]].astype(np.float64) / grid.astype(np.float64))
        if np.abs(steps).max() > np.iinfo(np.int32).max:
            raise StageError(
                f"the bias {node.input[2]!r} does not fit int32 at its scale", hint="train longer", code="MKD-411"
            )
        snapped[node.input[2]] = (steps * grid).astype(np.float32)
    for one in model.graph.initializer:
        if one.name in snapped:
            one.CopyFrom(numpy_helper.from_array(snapped[one.name], one.name))
    return model


def bias_grid(node: NodeProto, index: QdqIndex) -> NDArray[np.float32] | None:
    """Return the scale of a layer's accumulator, one a channel; None for a node without int8 input, weight and bias."""
    if node.op_type not in WEIGHTED_OPS or len(node.input) < 3:
        return None
    if node.input[0] not in index.rounded or node.input[1] not in index.weights:
        return None
    input_scale = index.constants[index.maker[node.input[0]].input[1]].astype(np.float32)
    weight_scale = index.constants[index.weights[node.input[1]].input[1]].astype(np.float32)
    return np.atleast_1d(input_scale * weight_scale)


def read_table(model: ModelProto) -> QuantTable:
    """Return the quantization table of a QDQ graph whose weights are named and whose biases are snapped."""
    index = index_qdq(model)
    names = public_names(model, index)
    found: dict[str, TensorQuant] = {}
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear":
            name = names.get(node.input[0], node.input[0])
            found[name] = _tensor_quant(name, "activation", node, index)
        elif node.output[0] in index.weights:
            found[node.input[0]] = _tensor_quant(node.input[0], "weight", node, index)
        if (grid := bias_grid(node, index)) is not None:
            scale = tuple(float(step) for step in grid)
            limit = np.iinfo(np.int32)
            found[node.input[2]] = TensorQuant(
                node.input[2], "bias", "int32", scale, (0,) * len(scale), 0, int(limit.min), int(limit.max)
            )
    return QuantTable(tuple(found.values()))


def _tensor_quant(name: str, role: str, node: NodeProto, index: QdqIndex) -> TensorQuant:
    scale, zero_point = (index.constants[one].reshape(-1) for one in node.input[1:3])
    axis = next((helper.get_attribute_value(one) for one in node.attribute if one.name == "axis"), 1)
    is_weight = role == "weight"
    return TensorQuant(
        name=name,
        role="weight" if is_weight else "activation",
        dtype="int8",
        scale=tuple(float(one) for one in scale),
        zero_point=tuple(int(one) for one in zero_point),
        axis=int(axis) if is_weight and len(scale) > 1 else None,
        quant_min=-127 if is_weight else -128,
        quant_max=127,
    )


def public_names(model: ModelProto, index: QdqIndex) -> dict[str, str]:
    """Map the tensor that is rounded into a graph output to that output's name."""
    return {index.rounded[one.name]: one.name for one in model.graph.output if one.name in index.rounded}


def strip_qdq(model: ModelProto) -> ModelProto:
    """Return the float graph of a QDQ graph: no Q/DQ nodes, weights = int8 x scale, activations keep their names."""
    index = index_qdq(model)
    public = public_names(model, index)
    stripped = ModelProto()
    stripped.CopyFrom(model)
    del stripped.graph.node[:]
    del stripped.graph.initializer[:]
    weights = {name: node.input[0] for name, node in index.weights.items()}
    used: set[str] = set()
    for node in model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            continue
        kept = stripped.graph.node.add()
        kept.CopyFrom(node)
        inputs = [weights.get(name, index.rounded.get(name, name)) for name in node.input]
        kept.input[:] = [public.get(name, name) for name in inputs]
        kept.output[:] = [public.get(name, name) for name in node.output]
        used.update(kept.input)
    real = {node.input[0]: dequantized(node, index) for node in index.weights.values()}
    for name, value in {**index.constants, **real}.items():
        if name in used:
            stripped.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
    return stripped


def dequantized(node: NodeProto, index: QdqIndex) -> NDArray[np.float32]:
    """Return int8 x scale of the weight that a DequantizeLinear reads."""
    integers = index.constants[node.input[0]].astype(np.float32)
    scale = index.constants[node.input[1]].astype(np.float32).reshape(-1)
    axis = next((helper.get_attribute_value(one) for one in node.attribute if one.name == "axis"), 0)
    shape = [1] * integers.ndim
    shape[axis if len(scale) > 1 else 0] = len(scale)
    return (integers * scale.reshape(shape)).astype(np.float32)


def int8_initializers(model: ModelProto) -> int:
    """Return how many initializers are stored as int8 arrays of more than one element (zero points do not count)."""
    int8 = onnx.TensorProto.INT8
    names = {node.input[2] for node in model.graph.node if node.op_type.endswith("eLinear") and len(node.input) > 2}
    return sum(one.data_type == int8 and one.name not in names for one in model.graph.initializer)


def float_layers(model: ModelProto) -> tuple[str, ...]:
    """Return the conv, linear and matmul nodes of a QDQ graph whose input or weight is not int8."""
    index = index_qdq(model)
    int8 = index.rounded.keys() | index.weights.keys()
    layers = (node for node in model.graph.node if node.op_type in WEIGHTED_OPS)
    return tuple(node.name for node in layers if any(name not in int8 for name in node.input[:2]))
