"""An .mlpackage held against the quantization table and qdq.onnx, bit by bit; and what of it computes in float."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from onnx import NodeProto

from mobilekd import graph
from mobilekd.backends import _readback
from mobilekd.backends._coreml_file import Array, Operator, Package
from mobilekd.backends._torch_names import Names
from mobilekd.errors import StageError
from mobilekd.quant_table import QuantTable

_LAYERS: Mapping[str, tuple[str, str]] = {
    **dict.fromkeys(("conv", "conv_transpose", "linear"), ("x", "weight")),
    "matmul": ("x", "y"),
}
# fmt: off
_MOVES = frozenset((
    "const", "constexpr_affine_dequantize", "quantize", "dequantize", "reshape", "transpose", "squeeze", "expand_dims",
    "concat", "split", "slice_by_index", "slice_by_size", "gather", "pad", "identity", "cast", "tile", "pixel_shuffle",
))
# fmt: on
_CLAMPS = ("relu", "relu6", "clip")


@dataclass(frozen=True, slots=True)
class Found:
    """What was read back from a package: see `DeployedFacts`."""

    float_ops: tuple[str, ...]
    other_float_ops: tuple[str, ...]
    int8_tensors: int


def check(package: Path, origins: Mapping[str, str], qdq_onnx: Path, table: QuantTable) -> Found:
    """Return what computes in float; every number of the package is the table's, and the layers are whole in it.

    Args:
        package: The folder.
        origins: What coremltools calls an operator -> the ONNX tensor that it writes.
        qdq_onnx: What was trained.
        table: Its table.

    Raises:
        StageError: A scale, zero point, weight or bias is not what was trained, or is missing.
    """
    names = Names(graph.load(qdq_onnx))
    readback = _readback.ReadBack(package, table, _readback.trained(qdq_onnx, table))
    return _Checker(Package(package), origins, names, table, readback).run()


class _Checker:
    """One pass over a package."""

    def __init__(
        self,
        package: Package,
        origins: Mapping[str, str],
        names: Names,
        table: QuantTable,
        readback: _readback.ReadBack,
    ) -> None:
        self._package, self._origins, self._names = package, origins, names
        self._table, self._readback = table, readback
        self._scales = {np.float32(one.scale[0]) for one in table.with_role("activation")}
        self._readers: dict[str, list[Operator]] = {}
        for one in package.operators:
            for name in one.inputs.values():
                self._readers.setdefault(name, []).append(one)

    def run(self) -> Found:
        floats: dict[str, NodeProto] = {}
        others: dict[str, None] = {}
        for one in self._package.operators:
            layer = self._names.operator(self._origins.get(one.name, ""))
            if one.kind in ("quantize", "dequantize"):
                self._scale(one)
            elif one.kind in _LAYERS and layer is not None:
                if self._is_int8_layer(one):
                    self._layer(one, layer)
                else:
                    floats[layer.name] = layer
            elif one.kind not in _MOVES and layer is not None and not self._is_between_integers(one):
                others[f"{layer.op_type} {layer.name}"] = None
        left = {name for layer in floats.values() for name in (self._names.weight(layer), *layer.input)}
        constants = [one.name for one in self._table.tensors if one.role != "activation" and one.name not in left]
        self._readback.finish(constants)
        count = sum(one.kind in ("quantize", "constexpr_affine_dequantize") for one in self._package.operators)
        return Found(tuple(floats), tuple(others), count)

    def _scale(self, one: Operator) -> None:
        """Check the scale of a quantize or dequantize."""
        scale, zero_point = (self._number(one, part) for part in ("scale", "zero_point"))
        points = [int(point) for point in zero_point.reshape(-1)] if zero_point is not None else [0]
        if scale is None:
            raise StageError(f"{one.kind} {one.name} of the Core ML file has no scale")
        source = one if one.kind == "quantize" else self._package.by_name.get(one.inputs["input"])
        is_named = source is not None and source.kind == "quantize"
        name = self._names.rounded(self._origins.get(source.inputs["input"], "image")) if is_named and source else None
        if name is not None and name in self._table.by_name():
            self._readback.scales(name, scale, points)
        elif np.float32(scale.reshape(-1)[0]) not in self._scales:
            raise StageError(
                f"{one.kind} {one.name} of the Core ML file has the scale {scale}, which no activation of the"
                " quantization table has",
                hint="the file was not built from this table; run the convert stage again with --fresh",
            )

    def _layer(self, one: Operator, layer: NodeProto) -> None:
        """Check the weight and the bias of an int8 layer."""
        weight, name = self._package.by_name[one.inputs[_LAYERS[one.kind][1]]], self._names.weight(layer)
        if weight.kind == "constexpr_affine_dequantize" and name is not None:
            stored = weight.constants
            self._readback.scales(name, stored["scale"], {int(point) for point in stored["zero_point"].reshape(-1)})
            self._readback.weights(name, stored["quantized_data"])
        bias = self._package.constant(one.inputs.get("bias", ""))
        if bias is not None and len(layer.input) > 2:
            self._readback.biases(layer.input[2], bias)

    def _number(self, one: Operator, part: str) -> Array | None:
        """Return a parameter of an operator, given as a const or in place."""
        return one.constants.get(part) if part not in one.inputs else self._package.constant(one.inputs[part])

    def _is_int8_layer(self, one: Operator) -> bool:
        makers = (self._package.by_name.get(one.inputs[part]) for part in _LAYERS[one.kind])
        return all(maker is not None and maker.kind.endswith("dequantize") for maker in makers)

    def _is_between_integers(self, one: Operator) -> bool:
        """Return whether an operator reads dequantize and constants alone, and quantize alone reads it."""
        makers = (self._package.by_name.get(name) for name in one.inputs.values())
        clamped = one.kind in _CLAMPS
        kinds = ("dequantize", "const", *(_LAYERS if clamped else ()), *(("add", "mul") if clamped else ()))
        reads = all(maker is None or maker.kind in kinds for maker in makers)
        return reads and all(self._is_rounded(reader) for reader in self._readers.get(one.name, ()))

    def _is_rounded(self, reader: Operator) -> bool:
        if reader.kind == "quantize":
            return True
        return reader.kind in _CLAMPS and all(one.kind == "quantize" for one in self._readers.get(reader.name, ()))
