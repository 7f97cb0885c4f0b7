"""Hostile archives: names, types, sizes, fields, extra fields."""

import io
import struct
import zipfile
import zlib

from .rawzip import Item, zip_bytes
from .site import Case, Site, Words

NAMES = {
    "parent": b"../evil",
    "deep parent": b"models/../../../evil",
    "absolute": b"/tmp/evil",
    "two slashes": b"//evil",
    "backslash parent": b"..\\evil",
    "drive": b"C:\\evil",
    "drive, relative": b"C:evil",
    "UNC": b"\\\\host\\share\\evil",
    "here": b"./evil",
    "empty part": b"models//evil",
    "directory": b"evil/",
    "one dot": b".",
    "two dots": b"..",
    "newline": b"ev\nil",
    "ANSI escape": b"ev\x1b[2Jil",
    "DEL": b"ev\x7fil",
    "NUL": b"labels.txt\x00.png",
    "right to left": "ev\u202eil".encode(),
    "composed accent": "\u00e9vil".encode(),
    "decomposed accent": "e\u0301vil".encode(),
    "bad UTF-8": b"\xff\xfe",
    "Windows device": b"con.txt",
    "Windows device in a folder": b"models/LPT1",
    "stream": b"labels.txt:ads",
    "trailing dot": b"evil.",
    "trailing space": b"evil ",
    "wildcard": b"evil*",
    "leading dash": b"-rf",
    "shell words": b"$(evil)",
    "hidden": b".gitattributes",
    "git hook": b".git/hooks/post-checkout",
    "component of 256": b"e" * 256,
    "path of 5,000": b"e/" * 2500 + b"e",
    "2,000 folders deep": b"/".join([b"e"] * 2000),
    "empty": b"",
    "case twin": b"LABELS.TXT",
    "below a file": b"labels.txt/evil",
    "the same twice": b"labels.txt",
}
MODES = {"link": 0o120777, "pipe": 0o010644, "device": 0o020644, "set-user-id": 0o104755, "executable": 0o100755}


def items(site: Site) -> list[Item]:
    """Return the entries of the good bundle."""
    return [Item(name.encode(), data) for name, data in site.content().items()]


def _more(site: Site, *extra: Item, **end: int) -> Words:
    every = sorted([*items(site), *extra], key=lambda item: item.name)
    return [str(site.archive(zip_bytes(every, **end)))]


def _first(site: Site, **changes: object) -> Words:
    first, *rest = items(site)
    changed = Item(first.name, changes.pop("data", first.data), **changes)  # type: ignore[arg-type]
    return [str(site.archive(zip_bytes([changed, *rest])))]


def _cut(site: Site, change: object) -> Words:
    return [str(site.archive(change(zip_bytes(items(site)))))]  # type: ignore[operator]


def _named(name: bytes) -> Case:
    return lambda site: _more(site, Item(name, b"evil"))


def _both(**fields: int) -> Case:
    return lambda site: _first(site, both=fields)


def _local(**fields: int) -> Case:
    return lambda site: _first(site, local=fields)


def _central(**fields: int) -> Case:
    return lambda site: _first(site, central=fields)


def _end(**fields: int) -> Case:
    return lambda site: [str(site.archive(zip_bytes(items(site), **fields)))]


def _stdlib(method: int) -> Case:
    def build(site: Site) -> Words:
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", method) as archive:
            for name, data in site.content().items():
                archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), data, method)
        return [str(site.archive(out.getvalue()))]

    return build


def _inner() -> bytes:
    return zip_bytes([Item(b"evil", b"evil")])


def _bomb(site: Site) -> Words:
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    data = deflate.compress(bytes(64 << 20)) + deflate.flush()
    sizes = {"method": 8, "size": 64 << 20, "crc": zlib.crc32(bytes(64 << 20))}
    return _more(site, Item(b"evil", data, both=sizes))


def _many(site: Site) -> Words:
    return [str(site.archive(zip_bytes([Item(b"f%05d" % index) for index in range(10_000)], here=0, total=0)))]


def _one_content(site: Site) -> Words:
    """Let 21 directory entries share one local header."""
    whole = zip_bytes([Item(b"a", b"evil" * 1000)])
    start = whole.index(b"PK\x01\x02")
    record = whole[start : whole.index(b"PK\x05\x06")]
    end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 21, 21, 21 * len(record), start, 0)
    return [str(site.archive(whole[:start] + record * 21 + end))]


def _too_long(site: Site) -> Words:
    path = site.archive(zip_bytes(items(site)))
    with path.open("r+b") as stream:
        stream.truncate(5 << 30)
    return [str(path)]


def _big_manifest(site: Site) -> Words:
    """Pack a manifest of 100 MB."""
    content = site.content() | {"measurements/manifest.json": bytes(100 << 20)}
    return [str(site.archive(zip_bytes([Item(name.encode(), data) for name, data in content.items()])))]


def _out_of_order(site: Site) -> Words:
    return [str(site.archive(zip_bytes(items(site)[::-1])))]


def _hidden_gap(site: Site) -> Words:
    first, *rest = items(site)
    return [str(site.archive(zip_bytes([Item(first.name, first.data, gap=b"evil"), *rest])))]


_UNICODE_PATH = struct.pack("<HHBI", 0x7075, 9, 1, zlib.crc32(b"LICENSES.txt")) + b"evil"
_ZIP64 = struct.pack("<HHQQ", 1, 16, 4, 4)

CASES: dict[str, dict[str, Case]] = {
    "archive: names": {name: _named(raw) for name, raw in NAMES.items()},
    "archive: types": {
        **{name: _central(external=mode << 16) for name, mode in MODES.items()},
        "DOS attributes": _central(made_by=20, external=0x21),
        "directory mark": _central(external=0o040755 << 16 | 0x10),
    },
    "archive: sizes": {
        "64 MB deflated 1000:1": _bomb,
        "10,000 entries": _many,
        "21 entries share one content": _one_content,
        "5 GB": _too_long,
        "manifest of 100 MB": _big_manifest,
        "size past the end": _both(stored=1 << 30, size=1 << 30),
        "size of 4 GB": _both(stored=0xFFFFFFFF, size=0xFFFFFFFF),
        "size of the directory past the end": _central(stored=1 << 30, size=1 << 30),
        "empty file": lambda site: [str(site.archive(b""))],
        "end record only": lambda site: [str(site.archive(zip_bytes([])))],
    },
    "archive: fields": {
        "names differ": lambda site: _first(site, central_name=b"EVILNSES.txt"),
        "local size lies": _local(size=1),
        "local stored size lies": _local(stored=1),
        "directory size small": _central(size=1),
        "directory stored size small": _central(stored=1),
        "local checksum": _local(crc=1),
        "directory checksum": _central(crc=1),
        "checksum": _both(crc=1),
        "encrypted": _both(flags=1),
        "patched data": _both(flags=1 << 5),
        "data descriptor": _both(flags=1 << 3),
        "UTF-8 flag": _both(flags=1 << 11),
        "method 99": _both(method=99),
        "deflate flag on stored content": _both(method=8),
        "version 255": _both(version=255),
        "dated": _both(date=(2024 - 1980) << 9 | 5 << 5 | 5),
        "disk 1": _central(disk=1),
        "internal attributes": _central(internal=1),
        "offset past the end": _central(offset=0x7FFFFFFF),
        "offset of another entry": _central(offset=1),
        "broken local mark": lambda site: _cut(site, lambda whole: b"PK\x03\x05" + whole[4:]),
        "broken directory mark": lambda site: _cut(site, lambda whole: whole.replace(b"PK\x01\x02", b"PK\x01\x03", 1)),
        "entry comment": lambda site: _first(site, comment=b"evil"),
        "end: fewer entries": _end(here=1, total=1),
        "end: more entries": _end(here=60, total=60),
        "end: disk 1": _end(disk=1, directory_disk=1),
        "end: directory elsewhere": _end(directory_offset=0),
        "end: directory larger": _end(directory_bytes=1 << 20),
        "end: comment": lambda site: [str(site.archive(zip_bytes(items(site), comment=b"evil")))],
        "end: archive in the comment": lambda site: [str(site.archive(zip_bytes(items(site), comment=_inner())))],
        "end: comment that is not there": _end(comment_bytes=9),
        "shell script before": lambda site: [str(site.archive(zip_bytes(items(site), prefix=b"#!/bin/sh\n")))],
        "archive before": lambda site: _cut(site, lambda whole: _inner() + whole),
        "archive behind": lambda site: _cut(site, lambda whole: whole + _inner()),
        "byte behind": lambda site: _cut(site, lambda whole: whole + b"\0"),
        "hidden gap": _hidden_gap,
        "out of order": _out_of_order,
        "half": lambda site: _cut(site, lambda whole: whole[: len(whole) // 2]),
        "without its last byte": lambda site: _cut(site, lambda whole: whole[:-1]),
        "without an end record": lambda site: _cut(site, lambda whole: whole[:-22]),
        "deflate": _stdlib(zipfile.ZIP_DEFLATED),
        "bzip2": _stdlib(zipfile.ZIP_BZIP2),
        "lzma": _stdlib(zipfile.ZIP_LZMA),
    },
    "archive: extra fields": {
        "unicode path": lambda site: _first(site, local_extra=_UNICODE_PATH, central_extra=_UNICODE_PATH),
        "unicode path in the directory": lambda site: _first(site, central_extra=_UNICODE_PATH),
        "zip64": lambda site: _first(site, central_extra=_ZIP64),
        "bad zip64": lambda site: _first(site, local_extra=_ZIP64[:7]),
        "length past the end": _central(extra_bytes=60_000),
        "zero bytes": lambda site: _first(site, local_extra=bytes(8)),
    },
}
