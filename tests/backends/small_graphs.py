"""Small ONNX graphs, in float or with Q/DQ around every tensor, and what ONNX Runtime makes of them node by node."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from mobilekd import graph

Array = NDArray[np.generic]
Step = tuple[str, Sequence[str], Mapping[str, object]]
"""ONNX operator, inputs, attributes; its output is called "t0", "t1", …, the last one "logits"."""
RNG = np.random.default_rng(5)


def float_graph(steps: Sequence[Step], constants: Mapping[str, Array], shape: Sequence[int]) -> ModelProto:
    """Return a graph of steps from "image" to "logits"."""
    last = len(steps) - 1
    names = [f"t{at}" if at < last else "logits" for at in range(last + 1)]
    nodes = [
        helper.make_node(op, list(inputs), [name], name=f"{op}_{name}", **attributes)
        for name, (op, inputs, attributes) in zip(names, steps, strict=True)
    ]
    return _model(nodes, constants, shape)


def rounded_graph(
    steps: Sequence[Step],
    constants: Mapping[str, Array],
    shape: Sequence[int],
    image: NDArray[np.float32],
    *,
    zero_point: int = 0,
    unrounded: Sequence[str] = (),
) -> ModelProto:
    """Return the graph with Q/DQ behind every tensor, each at the scale of what flows, and int8 weights ("w…").

    A Relu or Clip behind a layer of its own is rounded and the layer is not, as training does it.
    """
    plain = float_graph(steps, constants, shape)
    seen = run_nodes(plain, image)
    nodes: list[NodeProto] = []
    extra: dict[str, Array] = {name: value for name, value in constants.items() if not name.startswith("w")}
    for name, value in constants.items():
        if name.startswith("w"):
            extra |= _weight(nodes, name, np.asarray(value, np.float32), axis=int(name[-1]))
    fused = {node.input[0] for node in plain.graph.node if node.op_type in ("Relu", "Clip")} - {"image"} | set(
        unrounded
    )
    _round(nodes, extra, ("image", "image_r"), seen["image"], zero_point=zero_point)
    for node in plain.graph.node:
        made, name = NodeProto(), node.output[0]
        made.CopyFrom(node)
        made.input[:] = [
            one if one in fused or (one in constants and one[0] != "w") else (f"{one}_r" if one else "")
            for one in node.input
        ]
        nodes.append(made)
        if name in fused:
            continue
        if name == "logits":
            made.output[0] = "logits_u"
            _round(nodes, extra, ("logits_u", "logits"), seen["logits"], zero_point=zero_point)
        else:
            _round(nodes, extra, (name, f"{name}_r"), seen[name], zero_point=zero_point)
    return graph.snap_biases(_model(nodes, extra, shape))


def run_nodes(model: ModelProto, image: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    """Return every tensor of a graph, computed without any optimization."""
    traced = ModelProto()
    traced.CopyFrom(model)
    del traced.graph.output[:]
    names = [name for node in model.graph.node for name in node.output]
    traced.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = ort.InferenceSession(traced.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return {"image": image, **dict(zip(names, session.run(names, {"image": image}), strict=True))}


def save(model: ModelProto, path: Path) -> Path:
    """Write a model; return the path."""
    path.write_bytes(model.SerializeToString())
    return path


def _round(
    nodes: list[NodeProto], extra: dict[str, Array], ends: tuple[str, str], seen: Array, *, zero_point: int
) -> None:
    source, result = ends
    low, high = min(0.0, float(seen.min())), max(0.0, float(seen.max()), 1e-3)
    scale = max(-low / (128 + zero_point) if low else 0.0, high / (127 - zero_point))
    extra |= {f"{source}_s": np.float32(scale), f"{source}_z": np.int8(zero_point)}
    grid = [f"{source}_s", f"{source}_z"]
    nodes.append(helper.make_node("QuantizeLinear", [source, *grid], [f"{source}_q"], name=f"{source}_q"))
    nodes.append(helper.make_node("DequantizeLinear", [f"{source}_q", *grid], [result], name=f"{source}_dq"))


def _weight(nodes: list[NodeProto], name: str, value: NDArray[np.float32], *, axis: int) -> dict[str, Array]:
    others = tuple(at for at in range(value.ndim) if at != axis)
    scale = (np.abs(value).max(others) / 127).astype(np.float32)
    shape = [-1 if at == axis else 1 for at in range(value.ndim)]
    payload = np.clip(np.rint(value / scale.reshape(shape)), -127, 127).astype(np.int8)
    inputs = [f"{name}_int8", f"{name}_scale", f"{name}_zero"]
    nodes.append(helper.make_node("DequantizeLinear", inputs, [f"{name}_r"], name=f"{name}_r", axis=axis))
    return dict(zip(inputs, (payload, scale, np.zeros(len(scale), np.int8)), strict=True))


def _model(nodes: Sequence[NodeProto], constants: Mapping[str, Array], shape: Sequence[int]) -> ModelProto:
    built = helper.make_graph(
        list(nodes),
        "small",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, list(shape))],
        [onnx.ValueInfoProto(name="logits", type=helper.make_tensor_type_proto(TensorProto.FLOAT, None))],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(built, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
