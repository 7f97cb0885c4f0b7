"""A zip writer that can lie about everything."""

import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

_OF_BOTH = (
    ("version", "H"),
    ("flags", "H"),
    ("method", "H"),
    ("time", "H"),
    ("date", "H"),
    ("crc", "I"),
    ("stored", "I"),
    ("size", "I"),
    ("name_bytes", "H"),
    ("extra_bytes", "H"),
)
LOCAL = (("mark", "4s"), *_OF_BOTH)
CENTRAL = (
    ("mark", "4s"),
    ("made_by", "H"),
    *_OF_BOTH,
    ("comment_bytes", "H"),
    ("disk", "H"),
    ("internal", "H"),
    ("external", "I"),
    ("offset", "I"),
)
END = (
    ("mark", "4s"),
    ("disk", "H"),
    ("directory_disk", "H"),
    ("here", "H"),
    ("total", "H"),
    ("directory_bytes", "I"),
    ("directory_offset", "I"),
    ("comment_bytes", "H"),
)
Changes = Mapping[str, int | bytes]


@dataclass(frozen=True)
class Item:
    """One entry; `local` and `central` override fields of its two headers, `both` those of either."""

    name: bytes
    data: bytes = b""
    both: Changes = field(default_factory=dict)
    local: Changes = field(default_factory=dict)
    central: Changes = field(default_factory=dict)
    local_extra: bytes = b""
    central_extra: bytes = b""
    central_name: bytes | None = None
    comment: bytes = b""
    gap: bytes = b""
    """Bytes behind the content that no header knows."""


def zip_bytes(items: Sequence[Item], *, prefix: bytes = b"", comment: bytes = b"", **end: int) -> bytes:
    """Return an archive in the form of mobilekd, but for what the items and the end record say."""
    out, directory = bytearray(prefix), bytearray()
    for item in items:
        offset = len(out)
        out += _local(item) + item.data + item.gap
        directory += _central(item, offset)
    last = {
        "mark": b"PK\x05\x06",
        "here": len(items),
        "total": len(items),
        "directory_bytes": len(directory),
        "directory_offset": len(out),
        "comment_bytes": len(comment),
    }
    return bytes(out) + bytes(directory) + _pack(END, last | end) + comment


def _local(item: Item) -> bytes:
    own = {"mark": b"PK\x03\x04", "name_bytes": len(item.name), "extra_bytes": len(item.local_extra)}
    return _pack(LOCAL, _plain(item) | own | dict(item.both) | dict(item.local)) + item.name + item.local_extra


def _central(item: Item, offset: int) -> bytes:
    name = item.name if item.central_name is None else item.central_name
    own = {
        "mark": b"PK\x01\x02",
        "made_by": 3 << 8 | 20,
        "name_bytes": len(name),
        "extra_bytes": len(item.central_extra),
        "comment_bytes": len(item.comment),
        "external": 0o100644 << 16,
        "offset": offset,
    }
    fields = _plain(item) | own | dict(item.both) | dict(item.central)
    return _pack(CENTRAL, fields) + name + item.central_extra + item.comment


def _plain(item: Item) -> dict[str, int | bytes]:
    return {
        "version": 20,
        "date": 1 << 5 | 1,
        "crc": zlib.crc32(item.data),
        "stored": len(item.data),
        "size": len(item.data),
    }


def _pack(layout: Sequence[tuple[str, str]], fields: Changes) -> bytes:
    return struct.pack("<" + "".join(kind for _, kind in layout), *(fields.get(name, 0) for name, _ in layout))
