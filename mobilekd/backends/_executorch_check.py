"""A .pte file held against the quantization table and qdq.onnx, bit by bit; and what of it computes in float."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from onnx import NodeProto

from mobilekd import graph
from mobilekd.backends import _readback
from mobilekd.backends._executorch_file import PteFile
from mobilekd.backends._executorch_lower import Lowered
from mobilekd.backends._executorch_xnn import CONVOLUTIONS, Node, Value, XnnGraph
from mobilekd.backends._torch_names import Names
from mobilekd.errors import StageError
from mobilekd.quant_table import QuantTable

_LAYERS = (*CONVOLUTIONS, "FullyConnected", "BatchMatrixMultiply")
_MOVES = ("Convert", "Copy", "StaticReshape", "StaticTranspose", "StaticSlice", "StaticConstantPad", "Concatenate")
_QUANTIZES = "quantize_per_"
_MOVES_OUTSIDE = ("copy", "clone", "_to_", "slice", "select", "cat", "constant_pad", "empty", "full", "index", "split")
_PRODUCTS_OUTSIDE = ("convolution", "addmm", "linear", "bmm", "aten_mm")
# The stored order of a weight's axes -> the order of ONNX: [outputs, inputs, height, width].
_ORDERS = {"Conv2d": (0, 3, 1, 2), "DepthwiseConv2d": (3, 0, 1, 2), "ConvTranspose2d": (3, 0, 1, 2)}


@dataclass(frozen=True, slots=True)
class Found:
    """What was read back from a file: see `DeployedFacts`.

    Attributes:
        absent: Activations of the table that are not rounded on their own in the file.
        inside, outside: Operators in the delegates and outside them.
    """

    float_ops: tuple[str, ...]
    other_float_ops: tuple[str, ...]
    int8_tensors: int
    absent: tuple[str, ...]
    inside: int
    outside: int


def check(path: Path, file: PteFile, lowered: Lowered, qdq_onnx: Path, table: QuantTable) -> Found:
    """Return what computes in float; every number of the file is the table's, and the table is whole in the file.

    Raises:
        StageError: A scale, zero point, weight or bias is not what was trained, or is missing.
    """
    model = graph.load(qdq_onnx)
    checker = _Checker(path, table, _readback.trained(qdq_onnx, table), Names(model), lowered.origins)
    for one in file.graphs:
        checker.delegate(one)
    for kernel in file.kernels:
        if _QUANTIZES in kernel.name:
            checker.kernel(kernel.numbers)
    for left in lowered.outside:
        checker.outside(left.operator, left.origin)
    return checker.finish(len(lowered.outside))


class _Checker:
    """One pass over a file."""

    def __init__(
        self, path: Path, table: QuantTable, trained: _readback.Trained, names: Names, origins: Mapping[int, str]
    ) -> None:
        self._path, self._table, self._names, self._origins = path, table, names, origins
        self._readback = _readback.ReadBack(path, table, trained)
        self._scales = {np.float32(one.scale[0]): one.name for one in table.with_role("activation")}
        self._layers: dict[str, None] = {}
        self._others: dict[str, None] = {}
        self._int8 = self._inside = 0

    def delegate(self, found: XnnGraph) -> None:
        """Check every operator and every int8 tensor of one delegate."""
        self._inside += len(found.nodes)
        self._int8 += sum(one.dtype == "int8" for one in found.values.values())
        for node in found.nodes:
            origin = self._origins.get(node.handle, "")
            self._written(found.values[node.output], self._names.rounded(origin))
            operator = self._names.operator(origin)
            if _is_float(node, found.values):
                self._count(node.kind in _LAYERS, operator, origin or node.kind)
            elif operator is not None and operator.op_type in graph.WEIGHTED_OPS and len(node.inputs) > 1:
                self._layer(node, found, operator)

    def kernel(self, numbers: Sequence[float]) -> None:
        """Check the scale of a tensor that is rounded outside the delegates."""
        for number in numbers:
            self._known(np.float32(number))

    def outside(self, operator: str, origin: str) -> None:
        """Note an operator that a portable kernel computes, in float."""
        if _QUANTIZES in operator or any(word in operator for word in _MOVES_OUTSIDE):
            return
        is_product = any(word in operator for word in _PRODUCTS_OUTSIDE)
        self._count(is_product, self._names.operator(origin), origin or operator)

    def finish(self, outside: int) -> Found:
        """Return what was found, after a look for what is missing."""
        layers = [self._names.operator(name) for name in self._layers]
        floats = {name for layer in layers if layer is not None for name in (self._names.weight(layer), *layer.input)}
        constants = [one.name for one in self._table.tensors if one.role != "activation" and one.name not in floats]
        self._readback.finish(constants)
        activations = (one.name for one in self._table.with_role("activation"))
        absent = tuple(name for name in activations if name not in self._readback.seen)
        told = tuple(layer.name for layer in layers if layer is not None)
        return Found(told, tuple(self._others), self._int8, absent, self._inside, outside)

    def _written(self, value: Value, name: str | None) -> None:
        """Check the scale of what an operator writes, if that is int8."""
        if value.dtype != "int8" or value.data is not None:
            return
        if name is None or name not in self._table.by_name():
            self._known(value.scale[0])
        else:
            self._readback.scales(name, value.scale, [value.zero_point])

    def _known(self, scale: np.float32) -> None:
        if scale not in self._scales:
            raise StageError(
                f"{self._path.name}: a tensor has the scale {scale}, which no activation of the quantization table has",
                hint="the file was not built from this table; run the convert stage again with --fresh",
            )

    def _layer(self, node: Node, found: XnnGraph, layer: NodeProto) -> None:
        """Check the weight and the bias of an int8 layer."""
        name, weight = self._names.weight(layer), found.values[node.inputs[1]]
        if name is None or weight.data is None:
            return
        self._readback.scales(name, weight.scale, [weight.zero_point])
        order = _ORDERS.get(node.kind, range(weight.data.ndim))
        self._readback.weights(name, weight.data.transpose(order))
        if len(node.inputs) > 2 and (bias := found.values[node.inputs[2]]).data is not None:
            if bias.dtype == "int32":
                self._readback.scales(layer.input[2], bias.scale, [0])
            self._readback.biases(layer.input[2], bias.data)

    def _count(self, is_layer: bool, operator: NodeProto | None, name: str) -> None:  # noqa: FBT001
        if is_layer:
            self._layers[name] = None
        elif operator is None or operator.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            self._others[f"{operator.op_type} {operator.name}" if operator is not None else name] = None


def _is_float(node: Node, values: Mapping[int, Value]) -> bool:
    is_move = node.kind.startswith(_MOVES)
    return not is_move and "float32" in {values[at].dtype for at in (node.inputs[0], node.output)}
