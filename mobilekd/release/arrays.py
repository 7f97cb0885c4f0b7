"""The arrays of a bundle: .npy files as `numpy.save` writes float32, and no others.

numpy's own reader evaluates the header as Python text and trusts the shape in
it; here a pattern reads the header, and the shape must account for every byte.
"""

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobilekd.backend import Float32
from mobilekd.errors import VerificationError

MAX_ARRAY_BYTES = 32 << 20
_MAX_HEADER_BYTES = 1024
_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00..\{'descr': '([^'\n]{1,20})', 'fortran_order': False, "
    rb"'shape': \((\d{1,9},|\d{1,9}(?:, \d{1,9}){1,7})\), \} *\n",
    re.DOTALL,
)


def read_float32(path: Path, where: str) -> Float32:
    """Return the array of a file.

    Args:
        path: A copy of a file of the bundle.
        where: What to call it in a message.

    Raises:
        VerificationError: It is not an array of float32, or too large.
    """
    if (size := path.stat().st_size) > MAX_ARRAY_BYTES:
        raise VerificationError(f"{where}: {size} bytes, an array of a bundle has at most {MAX_ARRAY_BYTES}")
    values: Float32 = array_of(path.read_bytes(), "<f4", where).astype(np.float32)
    return values


def array_of(content: bytes, kind: str, where: str) -> NDArray[Any]:
    """Return the array of a file's content.

    Args:
        content: All of the file.
        kind: What it must hold, as numpy writes it: "<f4".
        where: What to call it in a message.

    Raises:
        VerificationError: It is not an array of this kind.
    """
    header = _HEADER.match(content[:_MAX_HEADER_BYTES])
    if header is None or int.from_bytes(content[8:10], "little") != header.end() - 10:
        raise VerificationError(f"{where}: not an array as numpy.save writes it")
    got, shape = header[1].decode("latin-1"), tuple(int(axis) for axis in re.findall(rb"\d+", header[2]))
    if got != kind:
        raise VerificationError(f"{where}: holds {got!r}, expected {np.dtype(kind).name}")
    if len(content) != header.end() + np.dtype(kind).itemsize * math.prod(shape):
        raise VerificationError(f"{where}: {len(content)} bytes, its shape {list(shape)} says otherwise")
    return np.frombuffer(content, kind, offset=header.end()).reshape(shape)
