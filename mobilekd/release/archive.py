"""One archive form, and a reader that accepts no other.

The form is a zip of STORED entries in byte order of their names, dated
1980-01-01, without extras, comments or zip64. Deflate is left out because its
bytes differ between zlib builds (zlib 1.2.13 and zlib-ng 2.3.3 disagree).

A list of (name, content) has one archive, so the reader parses entries from
byte 0, builds the archive again, and demands the very same bytes. What other
readers disagree about (two directories, hidden gaps, local names that differ
from central ones, unicode-path extras) can't be in an accepted file.
"""

import itertools
import re
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NoReturn

from mobilekd.artifacts import files_below
from mobilekd.errors import StageError, VerificationError

MAX_FILE_BYTES = 2 << 30
MAX_BUNDLE_BYTES = (4 << 30) - 1  # offsets are 32 bits without zip64
MAX_FILES = 4096
MAX_PATH_CHARS = 240

_CHUNK_BYTES = 1 << 20
_LOCAL = struct.Struct("<4s5H3I2H")
_CENTRAL = struct.Struct("<4s4B4H3I5H2I")
_END = struct.Struct("<4s4H2IH")
_LOCAL_MARK, _CENTRAL_MARK, _END_MARK = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"
_VERSION = 20
_UNIX = 3
_DATE_1980_01_01 = 1 << 5 | 1
_PLAIN_FILE_0644 = 0o100644 << 16
_COMPONENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*", re.ASCII)
_WINDOWS_DEVICE = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of an archive: its name, size, CRC-32, and where its header starts."""

    name: str
    size: int
    crc: int
    offset: int

    @property
    def data_offset(self) -> int:
        """Return the byte at which the content starts."""
        return self.offset + _LOCAL.size + len(self.name)


def name_fault(name: str) -> str:
    """Return why a name may not stand in a bundle; empty when it may.

    Example:
        >>> name_fault("models/tflite-int8.tflite")
        ''
        >>> name_fault("../evil")
        "the part '..' is not made of letters, digits, '.', '_' and '-'"
    """
    if not name or len(name) > MAX_PATH_CHARS:
        return f"the name has {len(name)} characters, allowed are 1 to {MAX_PATH_CHARS}"
    for part in name.split("/"):
        if not _COMPONENT.fullmatch(part):
            return f"the part {part!r} is not made of letters, digits, '.', '_' and '-'"
        if part.endswith("."):
            return f"the part {part!r} ends with a dot, which Windows drops"
        if _WINDOWS_DEVICE.fullmatch(part):
            return f"the part {part!r} is a device name on Windows"
    return ""


def check_names(names: Sequence[str], where: Path) -> None:
    """Refuse names that are unsafe on some system, or that fall together on one.

    Raises:
        VerificationError: Quotes the first bad name.
    """
    if not 0 < len(names) <= MAX_FILES:
        raise VerificationError(f"{where}: holds {len(names)} files, allowed are 1 to {MAX_FILES}", code="MKD-705")
    seen: dict[str, str] = {}
    for name in names:
        if fault := name_fault(name):
            _refuse(where, name, f"unsafe name: {fault}")
        if twin := seen.get(name.lower()):
            _refuse(where, name, f"the same name as {twin!r} on Windows and macOS")
        seen[name.lower()] = name
    for name in names:
        for parent in PurePosixPath(name.lower()).parents:
            if str(parent) in seen:
                _refuse(where, name, f"{seen[str(parent)]!r} is a file and its folder at once")


def write_archive(folder: Path, out: Path) -> None:
    """Write all files below a folder as one archive; equal folders give equal bytes.

    Raises:
        StageError: A file or the whole is too big for the form.
        VerificationError: A name is not allowed in a bundle.
    """
    names = [path.as_posix() for path in files_below(folder)]
    check_names(names, folder)
    entries = []
    offset = 0
    for name in names:
        size = (folder / name).stat().st_size
        if size > MAX_FILE_BYTES:
            raise StageError(f"{name}: {size} bytes, a bundle holds files up to {MAX_FILE_BYTES}")
        entries.append(Entry(name, size, _crc(_chunks(folder / name, 0, size)), offset))
        offset = entries[-1].data_offset + size
    total = offset + sum(_CENTRAL.size + len(entry.name) for entry in entries) + _END.size
    if total > MAX_BUNDLE_BYTES:
        raise StageError(f"the bundle has {total} bytes, allowed are {MAX_BUNDLE_BYTES}")
    with out.open("wb") as stream:
        for entry in entries:
            stream.write(_local_header(entry))
            for chunk in _chunks(folder / entry.name, 0, entry.size):
                stream.write(chunk)
        stream.write(b"".join((*map(_central_record, entries), _end_record(entries, offset))))


def read_archive(path: Path) -> tuple[Entry, ...]:
    """Return the entries of an archive that is byte for byte what `write_archive` makes.

    Raises:
        VerificationError: It is not; names the entry.
    """
    total = path.stat().st_size
    if total > MAX_BUNDLE_BYTES:
        raise VerificationError(f"{path}: {total} bytes, a bundle has at most {MAX_BUNDLE_BYTES}", code="MKD-705")
    entries: list[Entry] = []
    with path.open("rb") as stream:
        offset = 0
        while entry := _read_entry(stream, path, offset, entries):
            entries.append(entry)
            offset = entry.data_offset + entry.size
        check_names([entry.name for entry in entries], path)
        _check_order(entries, path)
        _check_directory(stream, entries, offset, path)
        if stream.read(1):
            raise VerificationError(f"{path}: holds bytes after the end of the archive", hint=_HINT, code="MKD-705")
    for entry in entries:
        if _crc(entry_chunks(path, entry)) != entry.crc:
            _refuse(path, entry.name, "its content does not match its checksum")
    return tuple(entries)


def entry_chunks(path: Path, entry: Entry) -> Iterator[bytes]:
    """Yield the content of one entry."""
    yield from _chunks(path, entry.data_offset, entry.size)


def _read_entry(stream: BinaryIO, path: Path, offset: int, before: Sequence[Entry]) -> Entry | None:
    """Return the entry whose header starts here; None where the directory starts."""
    after = f"after {before[-1].name!r}" if before else "at the start"
    stream.seek(offset)
    header = stream.read(_LOCAL.size)
    if before and header[:4] == _CENTRAL_MARK:
        return None
    if len(header) < _LOCAL.size or header[:4] != _LOCAL_MARK or len(before) >= MAX_FILES:
        raise VerificationError(f"{path}: no entry of a bundle {after} (byte {offset})", hint=_HINT, code="MKD-705")
    _, _, _, _, _, _, crc, _, size, name_bytes, _ = _LOCAL.unpack(header)
    name = _entry_name(stream.read(name_bytes), path, after)
    entry = Entry(name, size, crc, offset)
    if size > MAX_FILE_BYTES or entry.data_offset + size > path.stat().st_size:
        _refuse(path, name, f"its header says {size} bytes, more than there are or than a bundle may hold")
    if header + name.encode("ascii") != _local_header(entry):
        _refuse(path, name, "its header is not the one that mobilekd writes")
    return entry


def _entry_name(raw: bytes, path: Path, after: str) -> str:
    name = raw.decode("latin-1")
    if fault := name_fault(name):
        raise VerificationError(f"{path}: unsafe name {name[:80]!r} {after}: {fault}", hint=_HINT, code="MKD-705")
    return name


def _check_order(entries: Sequence[Entry], path: Path) -> None:
    for before, entry in itertools.pairwise(entries):
        if entry.name <= before.name:
            _refuse(path, entry.name, f"it stands after {before.name!r}, against the byte order of names")


def _check_directory(stream: BinaryIO, entries: Sequence[Entry], offset: int, path: Path) -> None:
    stream.seek(offset)
    for entry in entries:
        record = _central_record(entry)
        if stream.read(len(record)) != record:
            _refuse(path, entry.name, "its record in the directory does not match its header")
    if stream.read(_END.size) != _end_record(entries, offset):
        raise VerificationError(f"{path}: the end record does not match the entries", hint=_HINT, code="MKD-705")


def _chunks(path: Path, offset: int, size: int) -> Iterator[bytes]:
    with path.open("rb") as stream:
        stream.seek(offset)
        left = size
        while left and (chunk := stream.read(min(left, _CHUNK_BYTES))):
            left -= len(chunk)
            yield chunk
    if left:
        raise VerificationError(f"{path}: ends {left} bytes too early", hint=_HINT, code="MKD-705")


def _crc(chunks: Iterator[bytes]) -> int:
    crc = 0
    for chunk in chunks:
        crc = zlib.crc32(chunk, crc)
    return crc


def _local_header(entry: Entry) -> bytes:
    fixed = _LOCAL.pack(
        _LOCAL_MARK, _VERSION, 0, 0, 0, _DATE_1980_01_01, entry.crc, entry.size, entry.size, len(entry.name), 0
    )
    return fixed + entry.name.encode("ascii")


def _central_record(entry: Entry) -> bytes:
    made_by = (_VERSION, _UNIX, _VERSION, 0)
    content = (entry.crc, entry.size, entry.size)
    lengths = (len(entry.name), 0, 0, 0, 0)
    fixed = _CENTRAL.pack(
        _CENTRAL_MARK, *made_by, 0, 0, 0, _DATE_1980_01_01, *content, *lengths, _PLAIN_FILE_0644, entry.offset
    )
    return fixed + entry.name.encode("ascii")


def _end_record(entries: Sequence[Entry], directory_offset: int) -> bytes:
    directory_bytes = sum(_CENTRAL.size + len(entry.name) for entry in entries)
    return _END.pack(_END_MARK, 0, 0, len(entries), len(entries), directory_bytes, directory_offset, 0)


_HINT = "the file is damaged, or mobilekd did not write it: get it again from where it was built"


def _refuse(where: Path, name: str, why: str) -> NoReturn:
    raise VerificationError(f"{where}: {name}: {why}", hint=_HINT, code="MKD-705")
