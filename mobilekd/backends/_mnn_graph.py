"""MNN's compression parameters from the quantization table, and what a converted file says of them."""

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto, helper, numpy_helper

from mobilekd import graph
from mobilekd.backends._mnn_file import MnnFile, MnnOp, read_mnn
from mobilekd.backends._mnn_layers import Layer
from mobilekd.backends._readback import Integers, ReadBack
from mobilekd.errors import StageError
from mobilekd.quant_table import QuantTable, TensorQuant

_MATMUL_SUFFIX = "__matmul_converted"
_WEIGHTED = frozenset({"Convolution", "ConvolutionDepthwise"})
_LAYERS = _WEIGHTED | {"Deconvolution", "DeconvolutionDepthwise", "InnerProduct", "MatMul", "BatchMatMul"}
# Operators of 3.6 with an int8 kernel on the CPU, once their inputs and outputs have scales (CPUBackend.cpp);
# a pool only when both have the same scale.
_INT8_OPS = frozenset({"BinaryOp", "Scale", "Interp", "PReLU", "Softmax", "LayerNorm"})
_POOLS = frozenset({"Pooling", "Pooling3D"})
_NO_ARITHMETIC = frozenset(
    {"Input", "Const", "ConvertTensor", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Permute", "Extra"}
)
_SHAPE_SOURCES = frozenset({"Const", "Shape", "Rank", "Size"})


@dataclass(frozen=True, slots=True)
class Structure:
    """A converted file: its operators' types, in the order of `file.ops`."""

    types: tuple[str, ...]
    file: MnnFile


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
            "weight": [_ranged(quants[layer.weight])],
            "output": [_activation(quants[layer.output])],
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


def _ranged(quant: TensorQuant) -> dict[str, object]:
    limits = {"clamp_min": quant.quant_min, "clamp_max": quant.quant_max}
    return {"name": quant.name, "bits": 8, "scales": list(quant.scale), **limits}


def described(path: Path, table: QuantTable) -> dict[int, tuple[float, int]]:
    """Return scale and zero point by tensor index: what the converter wrote, and all tensors of the table by name."""
    file = read_mnn(path, frozenset())
    quants = {one.name: (one.scale[0], one.zero_point[0]) for one in table.with_role("activation")}
    names = (name.removesuffix(_MATMUL_SUFFIX) for name in file.tensors)
    return file.quant | {index: quants[name] for index, name in enumerate(names) if name in quants}


def read_structure(model: Path, dump: Path) -> Structure:
    """Return what is in a file: types of operators from the converter's JSON dump, the rest from the file itself."""
    ops = json.loads(dump.read_text(encoding="utf-8"))["oplists"]
    convolutions = frozenset(at for at, op in enumerate(ops) if op.get("main_type") == "Convolution2D")
    file = read_mnn(model, convolutions)
    if [op["name"] for op in ops] != [op.name for op in file.ops]:
        raise StageError(f"{model.name} can't be read back: its operators differ from the converter's dump")
    return Structure(tuple(op["type"] for op in ops), file)


def check_against_table(
    path: Path, structure: Structure, layers: tuple[Layer, ...], table: QuantTable, weights: Mapping[str, Integers]
) -> tuple[str, ...]:
    """Compare every scale, zero point and int8 weight of a file with the table.

    Returns:
        Names of weights stored in a compressed code, which can't be compared.

    Raises:
        StageError: Names the first tensor that differs or is missing.
    """
    found, unread = ReadBack(path, table, weights), []
    by_output = {layer.output: layer for layer in layers}
    file = structure.file
    for op in file.ops:
        layer = by_output.get(file.tensors[op.outputs[0]].removesuffix(_MATMUL_SUFFIX)) if op.outputs else None
        if layer is None or op.weight_scales is None:
            continue
        found.scales(layer.weight, op.weight_scales, {0})
        for name, index in ((layer.input, op.inputs[0]), (layer.output, op.outputs[0])):
            if index in file.quant:
                scale, zero_point = file.quant[index]
                found.scales(name, [scale], {zero_point})
        if op.weights is None:
            unread.append(layer.weight)
        else:
            found.weights(layer.weight, op.weights)
    found.finish([name for layer in layers for name in (layer.weight, layer.input, layer.output)])
    return tuple(unread)


def float_ops(structure: Structure) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return names of layers that MNN runs in float, then "Type name" of every other operator that does."""
    shapes: set[int] = set()
    layers, others = [], []
    for kind, op in zip(structure.types, structure.file.ops, strict=True):
        if kind in _SHAPE_SOURCES or (op.inputs and shapes.issuperset(op.inputs)):
            shapes.update(op.outputs)
        elif kind not in _NO_ARITHMETIC and not _is_int8(kind, op, structure.file):
            if kind in _LAYERS:
                layers.append(op.name)
            else:
                others.append(f"{kind} {op.name}")
    return tuple(layers), tuple(others)


def _is_int8(kind: str, op: MnnOp, file: MnnFile) -> bool:
    quants = [file.quant.get(index) for index in (*op.inputs, *op.outputs)]
    if None in quants:
        return False
    if kind in _WEIGHTED:
        return op.weight_scales is not None
    return kind in _INT8_OPS or (kind in _POOLS and len(set(quants)) == 1)


def int8_weights(structure: Structure) -> int:
    """Return how many layers have int8 weights."""
    return sum(op.weight_scales is not None for op in structure.file.ops)
