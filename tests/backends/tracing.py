"""What flows through an .onnx file of the ONNX Runtime backend, read with that runtime's optimizations on."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from onnx import TensorProto, helper

from mobilekd import graph
from mobilekd.backend import Float32
from mobilekd.backends._ort_graph import QUANTIZED


def trace_onnx(file: Path, image: Float32, names: Sequence[str]) -> dict[str, Float32]:
    """Return the dequantized values of the named tensors that the file has."""
    model = graph.load(file)
    constants = graph.index_qdq(model).constants
    quantizers = {node.output[0]: node for node in model.graph.node if node.op_type == "QuantizeLinear"}
    clips = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "Clip"}
    there = [name for name in names if clips.get(name + QUANTIZED, name + QUANTIZED) in quantizers]
    for name in there:
        model.graph.output.append(helper.make_tensor_value_info(name + QUANTIZED, TensorProto.UINT8, None))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found = session.run([name + QUANTIZED for name in there], {model.graph.input[0].name: image})
    traced = {}
    for name, integers in zip(there, found, strict=True):
        node = quantizers[clips.get(name + QUANTIZED, name + QUANTIZED)]
        scale, zero = (constants[one].astype(np.float32) for one in node.input[1:])
        traced[name] = scale * (integers.astype(np.float32) - zero)
    return traced
