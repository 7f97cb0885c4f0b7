"""A TFLite file read back as plain records, independent of what wrote it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobilekd.backends._tflite_pack import AlignedBuffer, SharedQuantization

LAYOUT = "mobilekd.layout"
"""Name of the metadata: JSON, ONNX tensor -> [TFLite tensor, axes], for those that differ from the usual."""
QUANTIZED = "_quantized"
"""Suffix of the int8 tensor where the float input or output of the file has the name."""

# Index of the activation and of the weights among an operator's inputs.
MATRIX_OPS = {
    "CONV_2D": (0, 1),
    "DEPTHWISE_CONV_2D": (0, 1),
    "FULLY_CONNECTED": (0, 1),
    "BATCH_MATMUL": (0, 1),
    "TRANSPOSE_CONV": (2, 1),
}
_BETWEEN = ("QUANTIZE", "DEQUANTIZE")


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor: scale and zero_point are empty where it is not quantized; data is None for an activation."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    scale: tuple[float, ...]
    zero_point: tuple[int, ...]
    axis: int
    data: NDArray[Any] | None


@dataclass(frozen=True, slots=True)
class Op:
    """One operator, as indices into the tensors; an absent optional input is left out."""

    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Graph:
    """The main subgraph, operators in the order in which they run.

    `layout` says which tensor holds an ONNX tensor, and how it lies there, where that is not the usual: the tensor of
    the same name, NHWC for four dimensions.
    """

    tensors: tuple[Tensor, ...]
    ops: tuple[Op, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    layout: Mapping[str, tuple[str, tuple[int, ...]]]

    def find(self, name: str) -> int | None:
        """Return the tensor that holds an ONNX tensor: the int8 one where there are two; None where there is none."""
        wanted, _ = self.layout.get(name, (name, ()))
        found = {tensor.name: index for index, tensor in enumerate(self.tensors)}
        return found.get(wanted + QUANTIZED, found.get(wanted))

    def axes(self, name: str, rank: int) -> tuple[int, ...]:
        """Return the ONNX axis that each dimension of an ONNX tensor's twin holds."""
        usual = (0, 2, 3, 1) if rank == 4 else tuple(range(rank))
        return self.layout[name][1] if name in self.layout else usual


def read_model(path: Path) -> Any:
    """Return the flatbuffer of a file as the mutable object of its schema (`ModelT`)."""
    from ai_edge_litert.tools import flatbuffer_utils

    return flatbuffer_utils.read_model(str(path))


def pack_model(model: Any) -> bytes:
    """Return the flatbuffer of a model that was read."""
    from ai_edge_litert.tools import flatbuffer_utils

    model.buffers = [AlignedBuffer(buffer.data) for buffer in model.buffers]
    written: dict[bytes, int] = {}
    for tensor in model.subgraphs[0].tensors:
        if tensor.quantization is not None:
            tensor.quantization = SharedQuantization(tensor.quantization, written)
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def view(model: Any) -> Graph:
    """Return the main subgraph of a model as plain records."""
    subgraph = model.subgraphs[0]
    ops = tuple(_op(model, op) for op in subgraph.operators)
    tensors = tuple(_tensor(model, tensor) for tensor in subgraph.tensors)
    inputs, outputs = (tuple(map(int, edge)) for edge in (subgraph.inputs, subgraph.outputs))
    return Graph(tensors, ops, inputs, outputs, _layout(model))


def float_matrix_ops(graph: Graph) -> tuple[str, ...]:
    """Return the convolution, linear and matmul layers that do not run in int8, by the name of their output."""
    return tuple(
        graph.tensors[op.outputs[0]].name
        for op in graph.ops
        if op.kind in MATRIX_OPS and any(_dtype(graph, op, role) != "int8" for role in MATRIX_OPS[op.kind])
    )


def other_float_ops(graph: Graph) -> tuple[str, ...]:
    """Return other operators that read or write float, as "KIND output"; not QUANTIZE and DEQUANTIZE around them."""
    return tuple(
        f"{op.kind} {graph.tensors[op.outputs[0]].name}"
        for op in graph.ops
        if op.kind not in (*MATRIX_OPS, *_BETWEEN)
        and any(graph.tensors[index].dtype.startswith("float") for index in (*op.inputs, *op.outputs))
    )


def count_kind(graph: Graph, kind: str) -> int:
    """Return how many operators of a kind run."""
    return sum(op.kind == kind for op in graph.ops)


def _dtype(graph: Graph, op: Op, position: int) -> str:
    return graph.tensors[op.inputs[position]].dtype


def _op(model: Any, op: Any) -> Op:
    from ai_edge_litert.tools import flatbuffer_utils

    kind = str(flatbuffer_utils.opcode_to_name(model, op.opcodeIndex))
    return Op(kind, tuple(int(i) for i in op.inputs if i >= 0), tuple(int(i) for i in op.outputs))


def _tensor(model: Any, tensor: Any) -> Tensor:
    from ai_edge_litert import schema_py_generated as schema

    kinds = {code: name.lower() for name, code in vars(schema.TensorType).items() if isinstance(code, int)}
    quantization, dtype = tensor.quantization, kinds[tensor.type]
    scale = () if quantization is None or quantization.scale is None else tuple(map(float, quantization.scale))
    zero_point = tuple(map(int, quantization.zeroPoint)) if scale else ()
    shape = () if tensor.shape is None else tuple(map(int, tensor.shape))
    raw = model.buffers[tensor.buffer].data
    data = None if raw is None or dtype in ("string", "int4") else np.frombuffer(bytes(raw), dtype).reshape(shape)
    axis = int(quantization.quantizedDimension) if scale else 0
    return Tensor(tensor.name.decode(), dtype, shape, scale, zero_point, axis, data)


def _layout(model: Any) -> dict[str, tuple[str, tuple[int, ...]]]:
    for entry in model.metadata or ():
        if entry.name.decode() == LAYOUT:
            content = json.loads(bytes(model.buffers[entry.buffer].data))
            return {name: (tensor, tuple(axes)) for name, (tensor, axes) in content.items()}
    return {}
