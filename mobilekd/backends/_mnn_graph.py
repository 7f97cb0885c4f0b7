"""MNN's compression parameters from the quantization table, and what a converted file says of them."""

import json
import uuid
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mobilekd.backend import Float32
from mobilekd.backends._mnn_columns import padded_scales, without_added_channels
from mobilekd.backends._mnn_file import MnnFile, MnnOp
from mobilekd.backends._mnn_layers import Layer
from mobilekd.backends._readback import ReadBack, Trained
from mobilekd.errors import StageError
from mobilekd.quant_table import QuantTable, TensorQuant

_MATMUL_SUFFIX = "__matmul_converted"
_WEIGHTED = frozenset({"Convolution", "ConvolutionDepthwise"})
_LAYERS = _WEIGHTED | {"Deconvolution", "DeconvolutionDepthwise", "InnerProduct", "MatMul", "BatchMatMul"}
# Operators of 3.6 with an int8 kernel on the CPU, once their inputs and outputs have scales (CPUBackend.cpp);
# a pool only when both have the same scale.
_INT8_OPS = frozenset({"BinaryOp", "Scale", "Interp", "PReLU", "Softmax", "LayerNorm"})
_POOLS = frozenset({"Pooling", "Pooling3D"})
# What becomes a Raster, which copies; in int8 where both sides have the same scale.
_MOVES = "Concat ConvertTensor Flatten Gather GatherV2 Identity Pack Padding Permute Reshape Slice SliceTf Squeeze"
_NO_ARITHMETIC = frozenset(
    {"Input", "Const", "Extra", "StridedSlice", "Tile", "Transpose", "Unpack", "Unsqueeze", *_MOVES.split()}
)
_PRODUCTS = frozenset({"MatMul", "BatchMatMul"})
_UNARY = frozenset({"UnaryOp", "ReLU", "ReLU6"})
_RESHAPES = frozenset({"ConvertTensor", "Reshape", "Squeeze", "Unsqueeze", "ExpandDims", "Flatten"})
_SMALLEST_DEPTHWISE_SCALE = 1e-6
_SHAPE_SOURCES = frozenset({"Const", "Shape", "Rank", "Size"})


def compression_params(layers: tuple[Layer, ...], table: QuantTable, digest: str) -> str:
    """Return JSON of MNN's Compression.Pipeline (tools/converter/source/compression/MNN_compression.proto).

    Args:
        layers: What runs in int8; empty for a float model.
        table: Scales and zero points.
        digest: Digest of the source; the converter would else write a random uuid into the file.
    """
    quants = table.by_name()
    entries = [
        {
            "op_name": layer.node,
            "method": "QAT",
            "input": [_activation(quants[layer.input])],
            "weight": [_weight(quants[layer.weight], layer)],
            "output": [_activation(quants[layer.output]) | {"name": layer.written}],
        }
        for layer in layers
    ]
    pipeline: dict[str, object] = {"version": "0.0.0", "mnn_uuid": str(uuid.uuid5(uuid.NAMESPACE_OID, digest))}
    if entries:
        params = {"round_mode": "ROUND_HALF_TO_EVEN", "layer": entries}
        pipeline["algo"] = [{"type": "QUANTIZE", "quant_params": params}]
    return json.dumps(pipeline, indent=1)


def _activation(quant: TensorQuant) -> dict[str, object]:
    return {**_ranged(quant), "zero_point": quant.zero_point[0]}


def _weight(quant: TensorQuant, layer: Layer) -> dict[str, object]:
    scales = quant.scale[slice(*layer.channels)] if layer.channels else quant.scale
    return {**_ranged(quant), "scales": padded_scales(scales, layer)}


def _ranged(quant: TensorQuant) -> dict[str, object]:
    limits = {"clamp_min": quant.quant_min, "clamp_max": quant.quant_max}
    return {"name": quant.name, "bits": 8, "scales": list(quant.scale), **limits}


def described(file: MnnFile, table: QuantTable) -> dict[int, tuple[float, int]]:
    """Return scale and zero point by tensor index: what the converter wrote, and all tensors of the table by name."""
    quants = {one.name: (one.scale[0], one.zero_point[0]) for one in table.with_role("activation")}
    named = tensors_by_name(file)
    return file.quant | {index: quants[name] for name, index in named.items() if name in quants}


def tensors_by_name(file: MnnFile) -> dict[str, int]:
    """Return the tensors that hold what their name says, by name.

    The converter moves an operator of one tensor in front of a reshape, and leaves the names where they were
    (MoveUnaryOpBeforeReshape.cpp): of SiLU behind a reshape, the tensor with the reshape's name holds the SiLU.
    """
    unary = {op.name for op in file.ops if op.kind in _UNARY}
    renamed = {
        index
        for op in file.ops
        for index in op.outputs
        if op.kind in _UNARY | _RESHAPES and file.tensors[index] != op.name and file.tensors[index] not in unary
    }
    named = ((name.removesuffix(_MATMUL_SUFFIX), index) for index, name in enumerate(file.tensors))
    # A linear layer has two tensors of its name, before and behind a reshape: the last one has the graph's shape.
    return {name: index for name, index in named if index not in renamed}


def without_map(tensor: str, value: Float32) -> Float32:
    """Return the rows [n, channels] of a linear layer, which MNN computes as maps of one pixel."""
    return value.reshape(value.shape[:2]) if tensor.endswith(_MATMUL_SUFFIX) else value


def check_against_table(
    path: Path, file: MnnFile, layers: tuple[Layer, ...], table: QuantTable, trained: Trained
) -> None:
    """Compare every scale, zero point, int8 weight and bias of a file with the table.

    Raises:
        StageError: Names the first tensor that differs or is missing.
    """
    found = ReadBack(path, table, trained)
    by_output = {layer.written: layer for layer in layers}
    parts: dict[str, list[tuple[Layer, MnnOp]]] = {}  # by output: two layers may share a weight
    for op in file.ops:
        layer = by_output.get(file.tensors[op.outputs[0]].removesuffix(_MATMUL_SUFFIX)) if op.outputs else None
        if layer is None or op.weight_scales is None:
            continue
        parts.setdefault(layer.output, []).append((layer, without_added_channels(op, layer)))
        for name, index in ((layer.input, op.inputs[0]), (layer.output, op.outputs[0])):
            if index in file.quant:
                scale, zero_point = file.quant[index]
                found.scales(name, [scale], {zero_point})
    quantized = table.by_name().keys()
    for name, index in tensors_by_name(file).items():
        if name in quantized and index in file.quant:
            found.scales(name, [file.quant[index][0]], {file.quant[index][1]})
    for pairs in parts.values():
        _check_layer(path, sorted(pairs, key=lambda pair: pair[0].channels or ()), found)
    found.finish([name for layer in layers for name in layer.tensors()])


def check_small_scales(layers: Sequence[Layer], table: QuantTable, trained: Trained) -> None:
    """Refuse a depthwise weight whose scale MNN would not use.

    MNN 3.6.1 computes a depthwise channel of a scale below 1e-6 with 1e-6 (CPUConvolution.cpp,
    updateInputOutputScale). In a channel that is all but dead that moves nothing.

    Raises:
        StageError: It can move an output by half a step or more.
    """
    quants = table.by_name()
    for layer in layers:
        weights = trained.weights[layer.weight]
        if weights.ndim != 4 or weights.shape[1] != 1:
            continue
        excess = np.maximum(_SMALLEST_DEPTHWISE_SCALE - np.asarray(quants[layer.weight].scale), 0)
        largest = np.abs(weights.astype(np.float64)).sum(axis=(1, 2, 3)) * 127 * quants[layer.input].scale[0]
        steps = float((largest * excess).max() / quants[layer.output].scale[0])
        if steps >= 0.5:
            raise StageError(
                f"{layer.weight!r}: MNN computes depthwise channels of a scale below 1e-6 with 1e-6, here up to"
                f" {steps:.1f} steps off",
                hint="deploy this network with another backend, or prune the channels whose weights are all but 0",
                code="MKD-422",
            )


def _check_layer(path: Path, parts: Sequence[tuple[Layer, MnnOp]], found: ReadBack) -> None:
    """Compare weights and bias of one layer; its parts are in order of channels."""
    layer, ops = parts[0][0], [op for _, op in parts]
    weights = [op.weights for op in ops if op.weights is not None]
    if len(weights) < len(ops):
        raise StageError(f"{path.name}: {layer.weight!r} is stored in a code that can't be read back", code="MKD-422")
    found.scales(layer.weight, np.concatenate([op.weight_scales for op in ops if op.weight_scales is not None]), {0})
    found.weights(layer.weight, np.concatenate(weights))
    if layer.bias:
        found.biases(layer.bias, np.concatenate([op.bias for op in ops if op.bias is not None]))


def float_ops(file: MnnFile) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return names of layers that MNN runs in float, then "Type name" of every other operator that does.

    A product of two activations (attention) has no weight and is no layer.

    MNN decides when it loads a file, by the scales of an operator's tensors (source/core/Pipeline.cpp, encode, and
    source/backend/cpu/CPUBackend.cpp, _supportQuant): this repeats its rules for 3.6.
    """
    shapes: set[int] = set()
    # A constant with a scale of its own is an activation that the converter computed.
    constants = {index for op in file.ops if op.kind == "Const" for index in op.outputs} - file.quant.keys()
    layers, others = [], []
    for op in file.ops:
        if op.kind in _SHAPE_SOURCES or (op.inputs and shapes.issuperset(op.inputs)):
            shapes.update(op.outputs)
        elif op.kind not in _NO_ARITHMETIC and not _is_int8(op, file):
            is_product = op.kind in _PRODUCTS and constants.isdisjoint(op.inputs[:2])
            if op.kind in _LAYERS and not is_product:
                layers.append(op.name)
            else:
                others.append(f"{op.kind} {op.name}")
    return tuple(layers), tuple(others)


def rounded_by_readers(file: MnnFile) -> frozenset[int]:
    """Return the tensors with a scale that int8 kernels alone read: whatever wrote them, the kernel sees integers."""
    readers: dict[int, list[MnnOp]] = {}
    for op in file.ops:
        for index in op.inputs:
            readers.setdefault(index, []).append(op)
    return frozenset(
        index
        for index in file.quant.keys() & readers.keys()
        if all(op.kind in _NO_ARITHMETIC or _is_int8(op, file) for op in readers[index])
    )


def _is_int8(op: MnnOp, file: MnnFile) -> bool:
    quants = [file.quant.get(index) for index in (*op.inputs, *op.outputs)]
    if None in quants:
        return False
    if op.kind in _WEIGHTED:
        return op.weight_scales is not None
    return op.kind in _INT8_OPS or (op.kind in _POOLS and len(set(quants)) == 1)


def int8_weights(file: MnnFile) -> int:
    """Return how many layers have int8 weights."""
    return sum(op.weight_scales is not None for op in file.ops)
