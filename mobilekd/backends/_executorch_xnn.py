"""The graph that ExecuTorch hands to XNNPACK, read by its published schema, bit by bit.

ExecuTorch's own tool prints such graphs as JSON with six decimals of a scale. Slots are those of `schema.fbs` in
`executorch/backends/xnnpack/serialization` (1.4.1, identifier XN01).
"""

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from flatbuffers.number_types import Float32Flags, Int16Flags, Int32Flags, Uint8Flags, Uint32Flags
from flatbuffers.table import Table
from numpy.typing import NDArray

from mobilekd.errors import StageError

_MAGIC = b"XH00"
# fmt: off
_KINDS = (
    "NONE", "Add", "FullyConnected", "Softmax", "Sigmoid", "StaticTranspose", "Clamp", "Conv2d", "Div",
    "StaticResizeBilinear2D", "StaticConstantPad", "AvgPooling2d", "Minimum", "DepthwiseConv2d", "MaxPooling2d",
    "Multiply", "Subtract", "Floor", "Convert", "GlobalAvgPooling2d", "StaticReshape", "ArgMaxPooling2d",
    "SquareRoot", "Ceiling", "Hardswish", "LeakyReLU", "Maximum", "Negate", "Square", "ELU", "Abs", "PReLU",
    "Concatenate2", "Concatenate3", "Concatenate4", "StaticSlice", "ScaledDotProductAttention", "BatchMatrixMultiply",
    "Concatenate5", "ConvTranspose2d", "ReciprocalSquareRoot", "Log", "Gelu", "Tanh", "Exp", "Sin", "Copy", "Cos",
)
# fmt: on
CONVOLUTIONS = ("Conv2d", "DepthwiseConv2d", "ConvTranspose2d")
_PAIRS = ("Add", "Div", "Minimum", "Multiply", "Subtract", "Maximum", "PReLU", "BatchMatrixMultiply")
# Slots of the inputs and of the output in each node's own table; those of one input and one output are (0,), 1.
_SLOTS: Mapping[str, tuple[tuple[int, ...], int]] = {
    **dict.fromkeys(_PAIRS, ((0, 1), 2)),
    **dict.fromkeys(CONVOLUTIONS, ((15, 16, 17), 18)),
    "FullyConnected": ((0, 1, 2), 3),
    **dict.fromkeys(("StaticTranspose", "StaticReshape", "StaticResizeBilinear2D"), ((2,), 3)),
    "StaticSlice": ((3,), 4),
    "StaticConstantPad": ((3,), 4),
    **dict.fromkeys(("AvgPooling2d", "MaxPooling2d"), ((10,), 11)),
    **dict.fromkeys(("ELU", "LeakyReLU"), ((1,), 2)),
    "Concatenate2": ((1, 2), 5),
    "Concatenate3": ((1, 2, 3), 5),
    "Concatenate4": ((1, 2, 3, 4), 5),
    "Concatenate5": ((1, 2, 3, 4, 7), 5),
    "ScaledDotProductAttention": ((0, 1, 2, 3, 4), 5),
}
_TYPES = {1: "float32", 3: "int8", 5: "int32", 6: "int8", 7: "int32"}
_STORED: Mapping[str, np.dtype[Any]] = {"float32": np.dtype("<f4"), "int8": np.dtype("i1"), "int32": np.dtype("<i4")}
_NO_VALUE = 2**32 - 1


@dataclass(frozen=True, slots=True)
class Value:
    """One tensor. `scale` is empty where it is not quantized; `data` is None where it flows."""

    dtype: str
    shape: tuple[int, ...]
    scale: NDArray[np.float32]
    zero_point: int
    channel_axis: int
    data: NDArray[Any] | None


@dataclass(frozen=True, slots=True)
class Node:
    """One operator; inputs and output are keys of `XnnGraph.values`. Absent inputs are left out."""

    kind: str
    handle: int
    inputs: tuple[int, ...]
    output: int


@dataclass(frozen=True, slots=True)
class XnnGraph:
    """What one delegate computes."""

    nodes: tuple[Node, ...]
    values: Mapping[int, Value]


def read_xnn(payload: bytes, named: Mapping[str, bytes]) -> XnnGraph:
    """Return the graph of one delegate.

    Args:
        payload: The delegate's bytes: header and flatbuffer.
        named: The constants of the file, by their keys.

    Raises:
        StageError: The bytes are no such graph.
    """
    if payload[4:8] != _MAGIC:
        raise StageError("a delegate's bytes are no XNNPACK graph of ExecuTorch", hint="pip install executorch==1.4.1")
    offset, size = struct.unpack_from("<II", payload, 10)
    buffer = bytearray(payload[offset : offset + size])
    root = _Record(Table(buffer, struct.unpack_from("<I", buffer)[0]))
    stored = [named.get(one.text(2), b"") for one in root.records(8)]
    values = dict(_value(one, stored) for one in root.records(2))
    return XnnGraph(tuple(_node(one) for one in root.records(1)), values)


class _Record:
    """One flatbuffer table, its fields by slot."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def number(self, slot: int, flags: Any, default: Any = 0) -> Any:
        at = self._at(slot)
        return self._table.Get(flags, at + self._table.Pos) if at else default

    def record(self, slot: int) -> "_Record":
        at = self._table.Pos + self._at(slot)
        return _Record(Table(self._table.Bytes, self._table.Indirect(at)))

    def records(self, slot: int) -> "Iterator[_Record]":
        for at in self._elements(slot, 4):
            yield _Record(Table(self._table.Bytes, self._table.Indirect(at)))

    def numbers(self, slot: int, flags: Any) -> list[Any]:
        return [self._table.Get(flags, at) for at in self._elements(slot, flags.bytewidth)]

    def text(self, slot: int) -> str:
        at = self._at(slot)
        return self._table.String(at + self._table.Pos).decode() if at else ""

    def _at(self, slot: int) -> int:
        return int(self._table.Offset(4 + 2 * slot))

    def _elements(self, slot: int, width: int) -> Sequence[int]:
        at = self._at(slot)
        if not at:
            return ()
        start = self._table.Vector(at)
        return range(start, start + width * self._table.VectorLen(at), width)


def _node(record: _Record) -> Node:
    kind = _KINDS[record.number(0, Uint8Flags)]
    places, written = _SLOTS.get(kind, ((0,), 1))
    fields = record.record(1)
    inputs = (fields.number(slot, Uint32Flags) for slot in places)
    return Node(
        kind,
        record.number(2, Uint32Flags),
        tuple(one for one in inputs if one != _NO_VALUE),
        fields.number(written, Uint32Flags),
    )


def _value(record: _Record, stored: Sequence[bytes]) -> tuple[int, Value]:
    fields, scale, zero_point, axis = record.record(1), np.zeros(0, np.float32), 0, 0
    if record.number(0, Uint8Flags) == 2:
        kind, quant, fields = fields.number(1, Uint8Flags), fields.record(2), fields.record(0)
        if kind == 1:
            axis = quant.number(1, Int32Flags)
            scale = np.frombuffer(stored[quant.number(2, Uint32Flags)], "<f4")
        else:
            scale, zero_point = np.array([quant.number(0, Float32Flags)], np.float32), quant.number(1, Int32Flags)
    dtype = _TYPES.get(fields.number(0, Int16Flags), "other")
    shape = tuple(int(one) for one in fields.numbers(2, Uint32Flags))
    place = fields.number(3, Uint32Flags)
    data = np.frombuffer(stored[place], _STORED[dtype]).reshape(shape) if place and dtype in _STORED else None
    return fields.number(6, Uint32Flags), Value(dtype, shape, scale, zero_point, axis, data)
