"""What an .mnn file holds, read from its flatbuffer: the converter's own JSON dump rounds scales to 6 decimals.

Field numbers are the order of fields in MNN's schema/default/{MNN,CaffeOp}.fbs; a union takes two.
"""

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobilekd.backends._mnn_operators import operator_name
from mobilekd.errors import StageError

NET_DESCRIBE, _NET_OPS, _NET_TENSORS = 1, 3, 7
_OP_INPUTS, _OP_MAIN_TYPE, _OP_MAIN, _OP_NAME, _OP_OUTPUTS, _OP_TYPE = 0, 1, 2, 3, 4, 5
_CONVOLUTION_2D = 9
"""Number of Convolution2D in the union OpParameter."""
_CONV_BIAS, _CONV_QUANT = 2, 3
_QUANT_BUFFER, _QUANT_ALPHA, _QUANT_TYPE = 0, 1, 2
_DESCRIBE_INDEX, _DESCRIBE_QUANT = 1, 4
_INFO_SCALE, _INFO_ZERO = 0, 1
_DENSE_INT8 = 1
"""IDSTQuan.type of weights stored as one byte each, plus 128, behind a header; other codes are compressed."""


@dataclass(frozen=True, slots=True)
class MnnOp:
    """One operator: tensor indices, and its int8 weights when it has any.

    Attributes:
        kind: Its type, as "Convolution".
        weight_scales: One per output channel; None for an operator without quantized weights.
        weights: Their integers in the order [out, in, height, width]; None when stored in a compressed code.
        bias: Real values, one per output channel; None for an operator without a bias.
    """

    name: str
    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    weight_scales: NDArray[np.float32] | None
    weights: NDArray[np.int8] | None
    bias: NDArray[np.float32] | None


@dataclass(frozen=True, slots=True)
class MnnFile:
    """Operators in file order, tensor names, and (scale, zero point) of the int8 tensors by tensor index."""

    ops: tuple[MnnOp, ...]
    tensors: tuple[str, ...]
    quant: dict[int, tuple[float, int]]


def read_mnn(path: Path) -> MnnFile:
    """Read a file.

    Raises:
        StageError: It is not an MNN file of a layout that we know.
    """
    data = path.read_bytes()
    try:
        net = _Table(data, struct.unpack_from("<I", data)[0])
        ops = tuple(_op(op) for op in net.tables(_NET_OPS))
        tensors = tuple(net.strings(_NET_TENSORS))
        return MnnFile(ops, tensors, dict(_described(net)))
    except (struct.error, UnicodeDecodeError, ValueError) as cause:
        raise StageError(
            f"{path.name} can't be read back: {cause}", hint="is this MNN version supported?", code="MKD-422"
        ) from cause


def field_position(data: bytes, field: int) -> int:
    """Return where in a file the root's reference to a field lies; the field must be there."""
    return _Table(data, struct.unpack_from("<I", data)[0]).position(field)


def _op(op: "_Table") -> MnnOp:
    main = op.table(_OP_MAIN) if op.byte(_OP_MAIN_TYPE) == _CONVOLUTION_2D else None
    quant = main.table(_CONV_QUANT) if main and main.has(_CONV_QUANT) else None
    scales, weights = None, None
    if quant and quant.has(_QUANT_BUFFER):
        scales = quant.array(_QUANT_ALPHA, np.float32).astype(np.float32)
        weights = _dense(quant) if quant.integer(_QUANT_TYPE) == _DENSE_INT8 else None
    inputs, outputs = (tuple(map(int, op.array(field, np.int32))) for field in (_OP_INPUTS, _OP_OUTPUTS))
    bias = main.array(_CONV_BIAS, np.float32) if main and main.has(_CONV_BIAS) else None
    kind = operator_name(op.integer(_OP_TYPE))
    return MnnOp(op.string(_OP_NAME), kind, inputs, outputs, scales, weights, bias)


def _dense(quant: "_Table") -> NDArray[np.int8] | None:
    """Return the integers of one layer; None unless its code table is -128, -127, ..., 127."""
    buffer = quant.array(_QUANT_BUFFER, np.uint8)
    dims = int(buffer[0])
    for width in (np.uint16, np.uint32):
        header = 1 + dims * np.dtype(width).itemsize
        count = math.prod(int(size) for size in buffer[1:header].view(width))
        codes = buffer[header + 1 : header + 257].view(np.int8)
        if buffer.size == header + 257 + count and np.array_equal(codes, np.arange(-128, 128)):
            return (buffer[header + 257 :].astype(np.int16) - 128).astype(np.int8)
    return None


def _described(net: "_Table") -> Iterator[tuple[int, tuple[float, int]]]:
    for describe in net.tables(NET_DESCRIBE):
        if describe.has(_DESCRIBE_QUANT):
            info = describe.table(_DESCRIBE_QUANT)
            yield describe.integer(_DESCRIBE_INDEX), (info.real(_INFO_SCALE), int(info.real(_INFO_ZERO)))


class _Table:
    """A flatbuffer table: a vtable of 16-bit offsets, one per field, 0 for a field that is not there."""

    def __init__(self, data: bytes, at: int) -> None:
        self._data = data
        self._at = at
        self._vtable = at - struct.unpack_from("<i", data, at)[0]
        self._fields = (struct.unpack_from("<H", data, self._vtable)[0] - 4) // 2

    def has(self, field: int) -> bool:
        return bool(self._offset(field))

    def position(self, field: int) -> int:
        return self._at + self._offset(field)

    def integer(self, field: int) -> int:
        return int(self._scalar(field, "<i"))

    def byte(self, field: int) -> int:
        return int(self._scalar(field, "<B"))

    def real(self, field: int) -> float:
        return float(self._scalar(field, "<f"))

    def table(self, field: int) -> "_Table":
        return _Table(self._data, self._target(field))

    def string(self, field: int) -> str:
        return self._text(self._target(field)) if self.has(field) else ""

    def array(self, field: int, dtype: type[np.generic]) -> NDArray[Any]:
        if not self.has(field):
            return np.zeros(0, dtype)
        start, count = self._vector(field)
        return np.frombuffer(self._data, dtype, count, start)

    def tables(self, field: int) -> Iterator["_Table"]:
        return (_Table(self._data, at) for at in self._elements(field))

    def strings(self, field: int) -> Iterator[str]:
        return (self._text(at) for at in self._elements(field))

    def _offset(self, field: int) -> int:
        if field >= self._fields:
            return 0
        return int(struct.unpack_from("<H", self._data, self._vtable + 4 + 2 * field)[0])

    def _scalar(self, field: int, code: str) -> Any:
        offset = self._offset(field)
        return struct.unpack_from(code, self._data, self._at + offset)[0] if offset else 0

    def _target(self, field: int) -> int:
        at = self._at + self._offset(field)
        return at + int(struct.unpack_from("<I", self._data, at)[0])

    def _vector(self, field: int) -> tuple[int, int]:
        at = self._target(field)
        return at + 4, int(struct.unpack_from("<I", self._data, at)[0])

    def _elements(self, field: int) -> Iterator[int]:
        start, count = self._vector(field) if self.has(field) else (0, 0)
        for at in range(start, start + 4 * count, 4):
            yield at + int(struct.unpack_from("<I", self._data, at)[0])

    def _text(self, at: int) -> str:
        length = int(struct.unpack_from("<I", self._data, at)[0])
        return self._data[at + 4 : at + 4 + length].decode()
