"""Scales for tensors that no convolution touches: MNN's converter writes those of a convolution's two ends alone.

Without its scale an addition whose sum is read by another addition, or the product of a SiLU, runs in float.
"""

import struct
from collections.abc import Mapping
from pathlib import Path

from mobilekd.backends._mnn_file import NET_DESCRIBE, field_position

_DT_INT8 = 6
# Flatbuffer tables of MNN's schema/default/MNN.fbs: a vtable holds its own size, the size of the table, and for each
# field the place in the table, 0 for a field that is not there. TensorDescribe: index is field 1, quantInfo field 4;
# TensorQuantInfo: scale, zero, min, max, type.
_DESCRIBE_VTABLE = struct.pack("<7H2x", 14, 12, 0, 4, 0, 0, 8)
_INFO_VTABLE = struct.pack("<7H2x", 14, 24, 4, 8, 12, 16, 20)
_DESCRIBE_SIZE, _INFO_SIZE = 12, 24


def describe(path: Path, quants: Mapping[int, tuple[float, int]]) -> None:
    """Replace the scales of a file by those of the table.

    A flatbuffer's references point forward, so the new list lies at the end of the file and the root's reference to
    it is moved; the old list stays as unreachable bytes.

    Args:
        path: An .mnn file, rewritten.
        quants: Scale and zero point by tensor index.
    """
    data = bytearray(path.read_bytes())
    data += bytes(-len(data) % 8)
    start = len(data)
    field = field_position(bytes(data), NET_DESCRIBE)
    struct.pack_into("<I", data, field, start - field)
    count = len(quants)
    vtables = start + 4 + 4 * count
    vtables += -vtables % 4
    first = vtables + len(_DESCRIBE_VTABLE) + len(_INFO_VTABLE)
    ends = [first + at * (_DESCRIBE_SIZE + _INFO_SIZE) for at in range(count)]
    data += struct.pack("<I", count)
    data += b"".join(struct.pack("<I", end - (start + 4 + 4 * at)) for at, end in enumerate(ends))
    data += bytes(vtables - len(data)) + _DESCRIBE_VTABLE + _INFO_VTABLE
    for end, (index, (scale, zero_point)) in zip(ends, sorted(quants.items()), strict=True):
        info = end + _DESCRIBE_SIZE
        data += struct.pack("<iiI", end - vtables, index, info - (end + 8))
        data += struct.pack("<iffffi", info - (vtables + len(_DESCRIBE_VTABLE)), scale, zero_point, -128, 127, _DT_INT8)
    path.write_bytes(bytes(data))
