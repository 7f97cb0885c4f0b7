"""The parts of a TFLite flatbuffer while it is being written: tensors, constants, operators with their versions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobilekd.backends._tflite_pack import AlignedBuffer, SharedQuantization

Array = NDArray[Any]
Option = int | float | bool | Sequence[int]

# Operators that carry options, and the schema's name of them.
_OPTIONS = {
    "ABS": "AbsOptions",
    "ADD": "AddOptions",
    "AVERAGE_POOL_2D": "Pool2DOptions",
    "BATCH_MATMUL": "BatchMatMulOptions",
    "BROADCAST_TO": "BroadcastToOptions",
    "CAST": "CastOptions",
    "CONCATENATION": "ConcatenationOptions",
    "CONV_2D": "Conv2DOptions",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    "DEPTH_TO_SPACE": "DepthToSpaceOptions",
    "DEQUANTIZE": "DequantizeOptions",
    "DIV": "DivOptions",
    "EXP": "ExpOptions",
    "FULLY_CONNECTED": "FullyConnectedOptions",
    "GATHER": "GatherOptions",
    "GELU": "GeluOptions",
    "HARD_SWISH": "HardSwishOptions",
    "LEAKY_RELU": "LeakyReluOptions",
    "LOG_SOFTMAX": "LogSoftmaxOptions",
    "MAXIMUM": "MaximumMinimumOptions",
    "MAX_POOL_2D": "Pool2DOptions",
    "MEAN": "ReducerOptions",
    "MINIMUM": "MaximumMinimumOptions",
    "MIRROR_PAD": "MirrorPadOptions",
    "MUL": "MulOptions",
    "NEG": "NegOptions",
    "PAD": "PadOptions",
    "PADV2": "PadV2Options",
    "POW": "PowOptions",
    "QUANTIZE": "QuantizeOptions",
    "REDUCE_MAX": "ReducerOptions",
    "REDUCE_MIN": "ReducerOptions",
    "RESHAPE": "ReshapeOptions",
    "RESIZE_BILINEAR": "ResizeBilinearOptions",
    "RESIZE_NEAREST_NEIGHBOR": "ResizeNearestNeighborOptions",
    "SLICE": "SliceOptions",
    "SOFTMAX": "SoftmaxOptions",
    "SPACE_TO_DEPTH": "SpaceToDepthOptions",
    "SPLIT": "SplitOptions",
    "SPLIT_V": "SplitVOptions",
    "SQUARED_DIFFERENCE": "SquaredDifferenceOptions",
    "STRIDED_SLICE": "StridedSliceOptions",
    "SUB": "SubOptions",
    "SUM": "ReducerOptions",
    "TILE": "TileOptions",
    "TRANSPOSE": "TransposeOptions",
    "TRANSPOSE_CONV": "TransposeConvOptions",
}
# Operators whose int8 kernels came with a later version than the one of the table's rule "int8 is version 2".
_INT8_VERSION = {"CONV_2D": 3, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 4, "BROADCAST_TO": 3}
_SINGLE_VERSION = (
    "TILE",
    "DEPTH_TO_SPACE",
    "QUANTIZE",
    "RESHAPE",
    "LEAKY_RELU",
    "ELU",
    "HARD_SWISH",
    "PRELU",
    "NEG",
    "SQUEEZE",
    "POW",
)
"""Operators whose version does not tell int8 from float; the reference set has TILE and DEPTH_TO_SPACE in version 1."""


@dataclass(frozen=True, slots=True)
class Quant:
    """How a tensor is quantized: one scale, or one for each index of `axis`; real = scale * (quantized - zero)."""

    scale: tuple[float, ...]
    zero_point: int = 0
    axis: int = 0


@dataclass(slots=True)
class _Tensor:
    name: str
    shape: tuple[int, ...]
    dtype: str
    quant: Quant | None
    buffer: int


@dataclass(frozen=True, slots=True)
class _Op:
    kind: str
    version: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Mapping[str, Option]


class ModelBuilder:
    """A TFLite model of one subgraph. Equal calls give equal bytes."""

    def __init__(self) -> None:
        self.tensors: list[_Tensor] = []
        self._ops: list[_Op] = []
        self._buffers: list[bytes | None] = [None]
        self._constants: dict[tuple[object, ...], int] = {}
        self._names: set[str] = set()

    def add_tensor(self, name: str, shape: Sequence[int], dtype: str, quant: Quant | None = None) -> int:
        """Add a tensor that flows; return its index. A name that is taken gets a number behind it."""
        self.tensors.append(_Tensor(self._unique(name), tuple(shape), dtype, quant, 0))
        return len(self.tensors) - 1

    def add_constant(self, name: str, data: Array, quant: Quant | None = None) -> int:
        """Add a constant, or return the index of the equal one of this name that is there."""
        content = np.ascontiguousarray(data).reshape(data.shape)
        key = (name, content.tobytes(), content.dtype.str, content.shape, quant)
        if key not in self._constants:
            self._buffers.append(content.tobytes())
            made = _Tensor(self._unique(name), content.shape, content.dtype.name, quant, len(self._buffers) - 1)
            self.tensors.append(made)
            self._constants[key] = len(self.tensors) - 1
        return self._constants[key]

    def add_op(
        self, kind: str, inputs: Sequence[int], outputs: Sequence[int], options: Mapping[str, Option] | None = None
    ) -> None:
        """Add an operator; -1 stands for an absent optional input."""
        dtypes = [self.tensors[index].dtype for index in inputs if index >= 0]
        shapes = [self.tensors[index].shape for index in inputs if index >= 0]
        version = op_version(kind, dtypes, shapes, options or {})
        if kind == "MUL" and dtypes[0] == "int8":
            version = self._mul_version(inputs, outputs)
        self._ops.append(_Op(kind, version, tuple(inputs), tuple(outputs), options or {}))

    def rename(self, index: int, name: str) -> None:
        """Give a tensor a name of its own; whoever had it gives it up."""
        for tensor in self.tensors:
            if tensor.name == name:
                tensor.name = self._unique(f"{name}_quantized")
        self._names.add(name)
        self.tensors[index].name = name

    def finish(self, inputs: Sequence[int], outputs: Sequence[int], metadata: Mapping[str, bytes]) -> bytes:
        """Return the flatbuffer of the model, its operators in the order in which they were added."""
        from ai_edge_litert import schema_py_generated as schema
        from ai_edge_litert.tools import flatbuffer_utils

        model = schema.ModelT()
        model.version, model.description = 3, "mobilekd"
        codes: dict[tuple[str, int], int] = {}
        ops = [self._operator(op, codes) for op in self._ops]
        model.operatorCodes = [_operator_code(kind, version) for kind, version in codes]
        written: dict[bytes, int] = {}
        subgraph = schema.SubGraphT()
        subgraph.name = "main"
        subgraph.tensors = [_tensor(one, written) for one in self.tensors]
        subgraph.inputs, subgraph.outputs = list(inputs), list(outputs)
        subgraph.operators = ops
        model.subgraphs = [subgraph]
        model.metadata = []
        for name, content in metadata.items():
            entry = schema.MetadataT()
            entry.name, entry.buffer = name, len(self._buffers)
            self._buffers.append(content)
            model.metadata.append(entry)
        model.buffers = [AlignedBuffer(content) for content in self._buffers]
        return bytes(flatbuffer_utils.convert_object_to_bytearray(model))

    def _operator(self, op: _Op, codes: dict[tuple[str, int], int]) -> Any:
        from ai_edge_litert import schema_py_generated as schema

        made = schema.OperatorT()
        made.opcodeIndex = codes.setdefault((op.kind, op.version), len(codes))
        made.inputs, made.outputs = list(op.inputs), list(op.outputs)
        if op.kind in _OPTIONS:
            name = _OPTIONS[op.kind]
            made.builtinOptionsType = getattr(schema.BuiltinOptions, name)
            made.builtinOptions = getattr(schema, name + "T")()
            for key, value in op.options.items():
                assert hasattr(made.builtinOptions, key), f"{op.kind} has no option {key}"
                setattr(made.builtinOptions, key, value)
        return made

    def _mul_version(self, inputs: Sequence[int], outputs: Sequence[int]) -> int:
        quants = [self.tensors[index].quant for index in (*inputs, *outputs)]
        first, second, result = (1.0 if one is None else one.scale[0] for one in quants)
        return 3 if first * second / result >= 1.0 else 2

    def _unique(self, name: str) -> str:
        made, number = name, 0
        while made in self._names:
            number += 1
            made = f"{name}_{number}"
        self._names.add(made)
        return made


def op_version(
    kind: str, dtypes: Sequence[str], shapes: Sequence[tuple[int, ...]], options: Mapping[str, Option]
) -> int:
    """Return the version that runtimes expect of an operator of these inputs.

    Source: the rules of tensorflow/lite/tools/versioning/op_version.cc, for the types that are written here.
    """
    is_int8 = "int8" in dtypes
    rank = max((len(shape) for shape in shapes), default=0)
    grouped = kind == "CONV_2D" and shapes[0][3] != shapes[1][3]
    dilated = kind == "DEPTHWISE_CONV_2D" and options.get("dilationHFactor", 1) != 1
    special = {
        "CONV_2D": 6 if grouped else 0,
        "DEPTHWISE_CONV_2D": 2 if dilated and not is_int8 else 0,
        "FULLY_CONNECTED": 6 if len(dtypes) == 2 else 5 if options.get("keepNumDims") else 0,
        "TRANSPOSE": 6 if rank > 5 else 4 if rank > 4 else 0,
        "SLICE": 5 if rank > 4 else 0,
        "STRIDED_SLICE": 4 if rank > 4 else 0,
        "PAD": 4 if rank > 4 else 0,
        "PADV2": 4 if rank > 4 else 0,
        "RESIZE_BILINEAR": 3 if options.get("halfPixelCenters") else 0,
        "RESIZE_NEAREST_NEIGHBOR": 3 if options.get("halfPixelCenters") or options.get("alignCorners") else 0,
        "TRANSPOSE_CONV": 4 if options.get("fusedActivationFunction") else 3 if len(dtypes) > 3 else 0,
        "DEQUANTIZE": 3 if "float16" in dtypes else 0,
        "BROADCAST_TO": 0 if is_int8 else 2,
        **{one: 3 for one in ("MAXIMUM", "MINIMUM", "SUB") if rank > 4 and len(set(shapes)) > 1},
        **({"DIV": 2} if rank > 4 and len(set(shapes)) > 1 else {}),
    }.get(kind, 0)
    plain = 1 if kind in _SINGLE_VERSION or not is_int8 else _INT8_VERSION.get(kind, 2)
    return special or plain


def _operator_code(kind: str, version: int) -> Any:
    from ai_edge_litert import schema_py_generated as schema

    code = schema.OperatorCodeT()
    builtin = getattr(schema.BuiltinOperator, kind)
    code.builtinCode, code.deprecatedBuiltinCode, code.version = builtin, min(builtin, 127), version
    return code


def _tensor(tensor: _Tensor, written: dict[bytes, int]) -> Any:
    from ai_edge_litert import schema_py_generated as schema

    made = schema.TensorT()
    made.name, made.shape, made.buffer = tensor.name, list(tensor.shape), tensor.buffer
    made.type = getattr(schema.TensorType, tensor.dtype.upper())
    if tensor.quant is not None:
        quantization = schema.QuantizationParametersT()
        quantization.scale = list(tensor.quant.scale)
        quantization.zeroPoint = [tensor.quant.zero_point] * len(tensor.quant.scale)
        quantization.quantizedDimension = tensor.quant.axis
        made.quantization = SharedQuantization(quantization, written)
    return made
