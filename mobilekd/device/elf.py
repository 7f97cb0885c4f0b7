"""Which shared libraries a program needs, read from its file: works for any architecture, runs nothing.

Layout: https://refspecs.linuxfoundation.org/elf/gabi4+/contents.html (64-bit, little-endian).
"""

import struct
from collections.abc import Iterable, Mapping
from pathlib import Path

_PT_LOAD, _PT_DYNAMIC = 1, 2
_DT_NEEDED, _DT_STRTAB = 1, 5


def needed(program: bytes) -> tuple[str, ...]:
    """Return the names of the libraries that an ELF file asks the loader for; empty for a static one.

    Raises:
        ValueError: It is no 64-bit little-endian ELF file.
    """
    if program[:6] != b"\x7fELF\x02\x01":
        raise ValueError("not a 64-bit little-endian ELF file")
    (table,) = struct.unpack_from("<Q", program, 0x20)
    size, count = struct.unpack_from("<HH", program, 0x36)
    headers = [struct.unpack_from("<IIQQQQ", program, table + index * size) for index in range(count)]
    loads = [(address, offset, length) for kind, _, offset, address, _, length in headers if kind == _PT_LOAD]
    dynamic = [(offset, length) for kind, _, offset, _, _, length in headers if kind == _PT_DYNAMIC]
    if not dynamic:
        return ()
    offset, length = dynamic[0]
    tags = list(struct.iter_unpack("<qQ", program[offset : offset + length]))
    address = next(value for tag, value in tags if tag == _DT_STRTAB)
    strings = next(address - start + at for start, at, size in loads if start <= address < start + size)
    return tuple(_text(program, strings + value) for tag, value in tags if tag == _DT_NEEDED)


def closure(roots: Iterable[Path], libraries: Mapping[str, Path]) -> dict[str, Path]:
    """Return every library that programs need, and those that these need, by name.

    Args:
        roots: Programs or libraries; not in the answer.
        libraries: Where to find a library, by name.

    Raises:
        ValueError: One is needed and not there.
    """
    found: dict[str, Path] = {}
    waiting = list(roots)
    while waiting:
        path = waiting.pop()
        for name in needed(path.read_bytes()):
            if name not in libraries:
                raise ValueError(f"{path.name} needs {name}, which no fetched package has")
            if name not in found:
                found[name] = libraries[name]
                waiting.append(libraries[name])
    return found


def _text(program: bytes, at: int) -> str:
    return program[at : program.index(b"\0", at)].decode()
