"""The proof that an int8 file for ONNX Runtime holds the table's numbers, and that it runs in integers."""

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from onnx import ModelProto, NodeProto, numpy_helper

from mobilekd import graph
from mobilekd.backends._ort_graph import ANOTHER, QUANTIZED, UINT8_SHIFT, UNCLAMPED
from mobilekd.backends._readback import ReadBack, Trained
from mobilekd.quant_table import QuantTable

_FLOAT_LAYERS = frozenset({*graph.WEIGHTED_OPS, "FusedConv", "NhwcFusedConv", "FusedGemm", "FusedMatMul"})
_NO_ARITHMETIC = frozenset(
    {"QuantizeLinear", "DequantizeLinear", "Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Identity"}
)


def check_against_table(path: Path, table: QuantTable, trained: Trained) -> None:
    """Read a written file again and compare every scale, zero point, int8 weight and bias with the table.

    Raises:
        StageError: Names the first tensor that differs or is missing.
    """
    model = graph.load(path)
    constants = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
    found = ReadBack(path, table, trained)
    for node in model.graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        integer = node.output[0] if node.op_type == "QuantizeLinear" else node.input[0]
        name = integer.partition(ANOTHER)[0].removesuffix(UNCLAMPED).removesuffix(QUANTIZED)
        zeros = constants[node.input[2]] if len(node.input) > 2 else np.zeros(1, np.int32)
        shift = UINT8_SHIFT if zeros.dtype == np.uint8 else 0
        scales = constants[node.input[1]]
        if shift:  # an activation has one scale; float layers read it once for each channel
            scales = np.unique(scales)
        found.scales(name, scales, {int(zero) - shift for zero in zeros.reshape(-1)})
        if name in trained.weights:
            found.weights(name, constants[integer])
        elif name in trained.biases:
            found.biases(name, constants[integer])
    found.finish(table.by_name().keys())


def float_nodes(optimized: ModelProto) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return what still runs in float in the graph that ONNX Runtime made of a file.

    Returns:
        Names of convolution, linear and matmul nodes; then "Type name" of every other node that computes in float.
        Moving data (reshape, transpose) is no computation.
    """
    integer: set[str] = set()
    layers, others = [], []
    for node in optimized.graph.node:
        gives_integers = node.op_type.startswith(("QLinear", "QuantizeLinear", "QGemm"))
        if gives_integers or (node.op_type != "DequantizeLinear" and node.input[0] in integer):
            integer.update(node.output)
        elif node.op_type in _FLOAT_LAYERS:
            layers.append(node.name or node.output[0])
        elif not _moves_data(node.op_type):
            others.append(f"{node.op_type} {node.name or node.output[0]}")  # parts of inlined functions have no name
    return tuple(layers), tuple(others)


def _moves_data(op_type: str) -> bool:
    return op_type in _NO_ARITHMETIC or op_type.startswith("Reorder")


def integer_kernels(optimized: ModelProto) -> Mapping[str, int]:
    """Return how often each integer kernel runs, by its operator."""
    return Counter(node.op_type for node in optimized.graph.node if node.op_type.startswith(("QLinear", "QGemm")))


def op_counts(nodes: Iterable[NodeProto]) -> str:
    """Return "QLinearConv 46, Clip 30, ...", most frequent first."""
    counts = Counter(node.op_type for node in nodes)
    return ", ".join(f"{op} {count}" for op, count in sorted(counts.items(), key=lambda one: (-one[1], one[0])))
