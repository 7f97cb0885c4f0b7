"""A TFLite file as plain records, the rewrites that it needs, and its bytes."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobilekd.backends._tflite_pack import AlignedBuffer, SharedQuantization

# Index of the activation and of the weights among an operator's inputs.
MATRIX_OPS = {
    "CONV_2D": (0, 1),
    "DEPTHWISE_CONV_2D": (0, 1),
    "FULLY_CONNECTED": (0, 1),
    "BATCH_MATMUL": (0, 1),
    "TRANSPOSE_CONV": (2, 1),
}
_EDGE_OPS = ("QUANTIZE", "DEQUANTIZE")
_FUSES_RELU = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "ADD")


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
    ends_in_relu6: bool = False


@dataclass(frozen=True, slots=True)
class Graph:
    """The main subgraph, operators in the order in which they run."""

    tensors: tuple[Tensor, ...]
    ops: tuple[Op, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    def activations(self) -> tuple[int, ...]:
        """Return the tensors that flow through the operators, constants left out, in the order they are made."""
        used = [index for op in self.ops for index in (*op.inputs, *op.outputs)]
        return tuple(index for index in dict.fromkeys((*self.inputs, *used)) if self.tensors[index].data is None)


def read_model(path: Path) -> Any:
    """Return the flatbuffer of a file as the mutable object of its schema (`ModelT`)."""
    from ai_edge_litert.tools import flatbuffer_utils

    return flatbuffer_utils.read_model(str(path))


def write_model(model: Any, path: Path) -> None:
    """Write a model with its constants inside the flatbuffer, aligned, and equal scales and zero points once.

    ai_edge_quantizer puts the constants of models above 256 KiB behind the
    flatbuffer, which runtimes before TFLite 2.14 do not read.
    """
    from ai_edge_litert.tools import flatbuffer_utils

    model.buffers = [AlignedBuffer(buffer.data) for buffer in model.buffers]
    written: dict[bytes, int] = {}
    for tensor in model.subgraphs[0].tensors:
        if tensor.quantization is not None:
            tensor.quantization = SharedQuantization(tensor.quantization, written)
    path.write_bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def view(model: Any) -> Graph:
    """Return the main subgraph of a model as plain records."""
    subgraph = model.subgraphs[0]
    ops = tuple(_op(model, op) for op in subgraph.operators)
    tensors = tuple(_tensor(model, tensor) for tensor in subgraph.tensors)
    return Graph(tensors, ops, tuple(map(int, subgraph.inputs)), tuple(map(int, subgraph.outputs)))


def tidy(model: Any) -> None:
    """Rewrite what the converter leaves slow: a pool over the whole map becomes MEAN, a late RELU is fused."""
    _pools_to_means(model)
    _fuse_late_relus(model)
    _join_reshapes(model)


def name_float_output(model: Any) -> None:
    """Give a float output the name that it had before ai_edge_quantizer put a DEQUANTIZE behind the int8 one."""
    tensors = model.subgraphs[0].tensors
    for op in model.subgraphs[0].operators:
        if _kind(model, op) == "DEQUANTIZE" and op.outputs[0] in model.subgraphs[0].outputs:
            name = tensors[op.inputs[0]].name
            tensors[op.inputs[0]].name, tensors[op.outputs[0]].name = name + b"_quantized", name


def float_matrix_ops(graph: Graph) -> tuple[str, ...]:
    """Return the convolution, linear and matmul layers that do not run in int8, by the name of their output."""
    return tuple(
        graph.tensors[op.outputs[0]].name
        for op in graph.ops
        if op.kind in MATRIX_OPS and any(_dtype(graph, op, role) != "int8" for role in MATRIX_OPS[op.kind])
    )


def other_float_ops(graph: Graph) -> tuple[str, ...]:
    """Return other operators that read or write float, as "KIND output"; not QUANTIZE and DEQUANTIZE at the edges."""
    return tuple(
        f"{op.kind} {graph.tensors[op.outputs[0]].name}"
        for op in graph.ops
        if op.kind not in MATRIX_OPS
        and any(graph.tensors[index].dtype.startswith("float") for index in (*op.inputs, *op.outputs))
        and not (op.kind in _EDGE_OPS and _at_edge(graph, op))
    )


def count_kind(graph: Graph, kind: str) -> int:
    """Return how many operators of a kind run."""
    return sum(op.kind == kind for op in graph.ops)


def _at_edge(graph: Graph, op: Op) -> bool:
    return op.inputs[0] in graph.inputs or op.outputs[0] in graph.outputs


def _dtype(graph: Graph, op: Op, position: int) -> str:
    return graph.tensors[op.inputs[position]].dtype


def _kind(model: Any, op: Any) -> str:
    from ai_edge_litert.tools import flatbuffer_utils

    name = str(flatbuffer_utils.opcode_to_name(model, op.opcodeIndex))
    return f"CUSTOM {model.operatorCodes[op.opcodeIndex].customCode.decode()}" if name == "CUSTOM" else name


def _op(model: Any, op: Any) -> Op:
    from ai_edge_litert import schema_py_generated as schema

    kind, fused = _kind(model, op), getattr(op.builtinOptions, "fusedActivationFunction", None)
    is_relu6 = kind == "RELU6" or fused == schema.ActivationFunctionType.RELU6
    return Op(kind, tuple(int(i) for i in op.inputs if i >= 0), tuple(int(i) for i in op.outputs), is_relu6)


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


def _pools_to_means(model: Any) -> None:
    """Turn AVERAGE_POOL_2D over the whole map into MEAN.

    The int8 kernel of AVERAGE_POOL_2D has no rescaling: its output must share
    the input's scale, and training has learned two. MEAN takes two.
    """
    from ai_edge_litert import schema_py_generated as schema

    subgraph = model.subgraphs[0]
    for op in subgraph.operators:
        shape = subgraph.tensors[op.inputs[0]].shape if len(op.inputs) else None
        if _kind(model, op) != "AVERAGE_POOL_2D" or shape is None:
            continue
        pool = op.builtinOptions
        if (pool.filterHeight, pool.filterWidth) != (shape[1], shape[2]) or pool.fusedActivationFunction:
            continue
        op.opcodeIndex = _opcode(model, schema.BuiltinOperator.MEAN, version=2)
        op.builtinOptionsType, op.builtinOptions = schema.BuiltinOptions.ReducerOptions, schema.ReducerOptionsT()
        op.builtinOptions.keepDims = True
        op.inputs = [int(op.inputs[0]), _spatial_axes(model)]


def _opcode(model: Any, builtin: int, *, version: int) -> int:
    from ai_edge_litert import schema_py_generated as schema

    code = schema.OperatorCodeT()
    code.builtinCode, code.deprecatedBuiltinCode, code.version = builtin, min(builtin, 127), version
    known = [(one.builtinCode, one.version) for one in model.operatorCodes]
    if (builtin, version) not in known:
        model.operatorCodes.append(code)
        return len(known)
    return known.index((builtin, version))


def _spatial_axes(model: Any) -> int:
    """Return the index of the constant [1, 2], height and width of NHWC; added once."""
    from ai_edge_litert import schema_py_generated as schema

    tensors, name = model.subgraphs[0].tensors, b"mobilekd/spatial_axes"
    for index, tensor in enumerate(tensors):
        if tensor.name == name:
            return index
    buffer, axes = schema.BufferT(), schema.TensorT()
    buffer.data = np.array([1, 2], np.int32).view(np.uint8)
    axes.name, axes.shape, axes.type, axes.buffer = name, [2], schema.TensorType.INT32, len(model.buffers)
    model.buffers.append(buffer)
    tensors.append(axes)
    return len(tensors) - 1


def _fuse_late_relus(model: Any) -> None:
    """Fuse RELU and RELU6 into the layer before them, also through a RESHAPE, which commutes with them."""
    from ai_edge_litert import schema_py_generated as schema

    subgraph = model.subgraphs[0]
    fused = {"RELU": schema.ActivationFunctionType.RELU, "RELU6": schema.ActivationFunctionType.RELU6}
    readers = Counter(int(index) for op in subgraph.operators for index in op.inputs)
    readers.update(int(index) for index in subgraph.outputs)
    makers = {int(op.outputs[0]): op for op in subgraph.operators}
    kept = []
    for op in subgraph.operators:
        before = makers.get(int(op.inputs[0])) if _kind(model, op) in fused else None
        layer = before
        while layer is not None and _kind(model, layer) == "RESHAPE" and readers[int(layer.outputs[0])] == 1:
            layer = makers.get(int(layer.inputs[0]))
        if before is None or layer is None or not _takes_relu(model, layer) or readers[int(layer.outputs[0])] != 1:
            kept.append(op)
            continue
        layer.builtinOptions.fusedActivationFunction = fused[_kind(model, op)]
        before.outputs = [int(op.outputs[0])]
        makers[int(op.outputs[0])] = before
    subgraph.operators = kept


def _join_reshapes(model: Any) -> None:
    """Drop a RESHAPE whose only reader is another."""
    subgraph = model.subgraphs[0]
    readers = Counter(int(index) for op in subgraph.operators for index in op.inputs)
    readers.update(int(index) for index in subgraph.outputs)
    makers = {int(op.outputs[0]): op for op in subgraph.operators if _kind(model, op) == "RESHAPE"}
    dropped = []
    for op in makers.values():
        before = makers.get(int(op.inputs[0]))
        if before is not None and readers[int(before.outputs[0])] == 1:
            op.inputs = [before.inputs[0], *op.inputs[1:]]
            dropped.append(id(before))
    subgraph.operators = [op for op in subgraph.operators if id(op) not in dropped]


def _takes_relu(model: Any, layer: Any) -> bool:
    return _kind(model, layer) in _FUSES_RELU and not layer.builtinOptions.fusedActivationFunction
