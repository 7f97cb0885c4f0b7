"""Hostile folders, manifests and arrays; the attacker made all unsigned digests fit where that is possible."""

import io
import os
import pickle
import socket
from pathlib import Path
from typing import Any

import numpy as np

from mobilekd.artifacts import digest_file

from .site import Case, Site, Words

MANIFEST, MEASURED = "manifest.json", "measurements/manifest.json"


def _in_folder(change: Any) -> Case:
    def build(site: Site) -> Words:
        folder = site.folder()
        change(folder)
        return [str(folder)]

    return build


def _deep(folder: Path) -> None:
    (folder / "/".join(["d"] * 200)).mkdir(parents=True)


def _crowd(folder: Path) -> None:
    (folder / "crowd").mkdir()
    for index in range(5000):
        (folder / f"crowd/{index}").touch()


def _sparse(name: str, size: int) -> Any:
    def change(folder: Path) -> None:
        with (folder / name).open("wb") as stream:
            stream.truncate(size)

    return change


def _socket(folder: Path) -> None:
    here = Path.cwd()
    os.chdir(folder)  # a socket's path has at most 107 bytes
    with socket.socket(socket.AF_UNIX) as one:
        one.bind("evil")
    os.chdir(here)


def _linked(name: str) -> Any:
    """Put a file outside of the bundle, and a link to it into it."""

    def change(folder: Path) -> None:
        outside = folder.parent / "outside"
        (folder / name).rename(outside)
        (folder / name).symlink_to(outside)

    return change


def _pipe_for_a_bundle(site: Site) -> Words:
    os.mkfifo(site.root / "x.zip")
    return [str(site.root / "x.zip")]


def _text(name: str, content: bytes | None) -> Case:
    if content is None:
        return _in_folder(_sparse(name, 100 << 20))
    if name == MANIFEST:
        return lambda site: site.with_manifest(content)
    return lambda site: site.with_measurements(content)


def _replaced(old: bytes, new: bytes) -> Case:
    def build(site: Site) -> Words:
        content = site.content()[MEASURED]
        assert old in content
        return site.with_measurements(content.replace(old, new, 1))

    return build


def _sealed(change: Any) -> Case:
    return lambda site: site.resealed(change)


def _set(*keys: Any, value: Any) -> Case:
    def change(document: Any) -> None:
        for key in keys[:-1]:
            document = document[key]
        document[keys[-1]] = value

    return _sealed(change)


def _twice(document: Any) -> None:
    document["files"].insert(0, document["files"][0])


def _entry(path: str) -> Case:
    entry = {"bytes": 0, "path": path, "sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}
    return _sealed(lambda document: _listed(document, entry))


def _listed(document: Any, entry: Any) -> None:
    """Put an entry where the order of names wants it."""
    document["files"] = sorted([*document["files"], entry], key=lambda one: one["path"].encode())


def _in_parity(text: bytes) -> Case:
    """Put a value where any JSON may stand."""

    def build(site: Site) -> Words:
        content = site.content()[MANIFEST]
        assert b'"parity": [' in content
        return site.with_manifest(content.replace(b'"parity": [', b'"parity": [\n    {\n      "x": %b\n    },' % text))

    return build


def _outside(site: Site) -> Words:
    """List a file outside of the bundle, and let a model point at it."""
    (site.root / "outside.bin").write_bytes(b"evil")
    entry = {"bytes": 4, "path": "../outside.bin", "sha256": digest_file(site.root / "outside.bin")}

    def change(document: Any) -> None:
        _listed(document, entry)
        document["models"][0]["file"] = "../outside.bin"

    return site.resealed(change)


def _array(content: bytes) -> Case:
    return lambda site: site.with_input(content)


def _npy(header: str, version: bytes = b"\x01\x00") -> bytes:
    text = header.encode().ljust(118) if len(header) < 118 else header.encode()
    length = len(text).to_bytes(2 if version == b"\x01\x00" else 4, "little")
    return b"\x93NUMPY" + version + length + text[:-1] + b"\n"


def _saved(array: Any) -> bytes:
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


class _Evil:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, ("touch evil",)


_BEYOND = "x" * 2_000_000 + "\U0001f600"
"""In memory, one character past the basic plane makes all of a text four times as long."""
_HEADER = "{{'descr': '{0}', 'fortran_order': False, 'shape': {1}, }}"
MANIFEST_TEXTS = {
    "100 MB": None,
    "empty": b"",
    "null": b"null\n",
    "a list": b"[]\n",
    "a string": b'"evil"\n',
    "not JSON": b"evil",
    "half": b'{\n  "bundle": "',
    "1,000,000 deep lists": b"[" * 1_000_000,
    "1,000,000 deep objects": b'{"a":' * 500_000,
    "600,000 empty lists": b"[" + b"[]," * 600_000 + b"[]]",
    "400,000 keys": b"{" + b'"":0,' * 400_000 + b'"":0}',
    "2 MB text beyond the BMP": b'{"mobilekd": "' + b"x" * 2_000_000 + "\U0001f600".encode() + b'"}',
    "key of 2 MB": b'{"' + b"k" * 2_000_000 + b'": 0}',
    "key with an ANSI escape": b'{"\\u001b]0;evil\\u0007": 0}',
    "number of 1,000,000 digits": b'{"schema": ' + b"9" * 1_000_000 + b"}",
    "invalid UTF-8": b'{"schema": "\xff\xfe"}',
    "UTF-16": '{"schema": 0}'.encode("utf-16"),
    "byte order mark": b"\xef\xbb\xbf{}",
    "NUL bytes": bytes(1000),
    "lone surrogate": b'{"schema": "\\ud800"}',
}


CASES: dict[str, dict[str, Case]] = {
    "folder": {
        "link to a file": _in_folder(_linked("labels.txt")),
        "link to a folder": _in_folder(_linked("models")),
        "link to its manifest": _in_folder(_linked(MANIFEST)),
        "link to nothing": _in_folder(lambda folder: (folder / "evil").symlink_to("nowhere")),
        "link to itself": _in_folder(lambda folder: (folder / "evil").symlink_to("evil")),
        "link to its parent": _in_folder(lambda folder: (folder / "evil").symlink_to("..")),
        "link to a device": _in_folder(lambda folder: (folder / "evil").symlink_to("/dev/zero")),
        "pipe": _in_folder(lambda folder: os.mkfifo(folder / "evil")),
        "pipe for a bundle": _pipe_for_a_bundle,
        "socket": _in_folder(_socket),
        "device for a bundle": lambda site: ["/dev/zero"],
        "200 folders deep": _in_folder(_deep),
        "5,000 files": _in_folder(_crowd),
        "3 GB file": _in_folder(_sparse("evil.bin", 3 << 30)),
        "labels of 1 GB": _in_folder(_sparse("labels.txt", 1 << 30)),
        "hidden file": _in_folder(lambda folder: (folder / ".gitattributes").touch()),
        "bad UTF-8 name": _in_folder(lambda folder: (folder / os.fsdecode(b"\xff")).touch()),
        "name with an ANSI escape": _in_folder(lambda folder: (folder / "e\x1b[2J").touch()),
        "name with a newline": _in_folder(lambda folder: (folder / "e\nv").touch()),
        "case twin": _in_folder(lambda folder: (folder / "LABELS.TXT").touch()),
        "extra file": _in_folder(lambda folder: (folder / "evil.py").touch()),
        "extra measurement": _in_folder(lambda folder: (folder / "measurements/evil.json").touch()),
        "no manifest": _in_folder(lambda folder: (folder / MANIFEST).unlink()),
        "folder for a manifest": _in_folder(
            lambda folder: [
                (folder / MANIFEST).unlink(),
                (folder / MANIFEST).mkdir(),
                (folder / MANIFEST / "a").touch(),
            ]
        ),
        "nothing": lambda site: [str(site.root)],
    },
    "manifest.json: text": {name: _text(MANIFEST, text) for name, text in MANIFEST_TEXTS.items()},
    "measurements/manifest.json: text": {
        **{name: _text(MEASURED, text) for name, text in MANIFEST_TEXTS.items()},
        "key twice": _replaced(b'  "host"', b'  "host": "evil",\n  "host"'),
        "escape for a letter": _replaced(b'"host"', b'"\\u0068ost"'),
        "space more": _replaced(b'  "host"', b'   "host"'),
        "line end of Windows": _replaced(b"\n", b"\r\n"),
        "text behind": _replaced(b"}\n", b"}\n{}"),
    },
    "manifest.json: values, digests made to fit": {
        "not a number": _in_parity(b"NaN"),
        "infinite": _in_parity(b"-Infinity"),
        "1e999": _in_parity(b"1e999"),
        "integer of 4,000 digits with a fraction": _in_parity(b"1" * 4000 + b".0"),
        "190 deep": _in_parity(b"[" * 190 + b"]" * 190),
        "100,000 deep": _in_parity(b"[" * 100_000 + b"]" * 100_000),
        "key twice": _in_parity(b'1,\n      "x": 2'),
        "lone surrogate": _in_parity(b'"\\udc80"'),
        "2 MB text beyond the BMP, a wrong schema": _sealed(
            lambda document: document.update(mobilekd=_BEYOND, schema="mobilekd.bundle/2")
        ),
        "2 MB text beyond the BMP, extra key": _set("dataset", value={_BEYOND: 1}),
        "90,000 files": _set("files", value=[0] * 90_000),
        "other schema": _set("schema", value="mobilekd.bundle/2"),
        "extra key": _set("evil", value=1),
        "extra key of a file": _set("files", 0, "evil", value=1),
        "files is an object": _set("files", value={}),
        "text for a number": _set("parity_images", value="360"),
        "fraction for an integer": _set("parity_images", value=360.0),
        "true for an integer": _set("parity_images", value=True),
        "negative size": _set("files", 0, "bytes", value=-1),
        "size of 10^30": _set("files", 0, "bytes", value=10**30),
        "size that lies": _set("files", 0, "bytes", value=1),
        "digest in capitals": _set("files", 0, "sha256", value="A" * 64),
        "digest too short": _set("files", 0, "sha256", value="ab"),
        "step of 0": _set("models", 0, "reference", "logit_step", value=0),
        "file twice": _sealed(_twice),
        "file twice in models": _entry("models/mnn-int8.mnn"),
        "files out of order": _sealed(lambda document: document["files"].reverse()),
        "lists a parent's file": _outside,
        "lists an absolute file": _entry("/etc/hostname"),
        "lists a device": _entry("/dev/null"),
        "lists itself": _entry(MANIFEST),
        "lists a measurement": _entry("measurements/latency.json"),
        "lists a measurement in capitals": _entry("Measurements/latency.json"),
        "lists a missing file": _entry("evil"),
        "lists no name": _entry(""),
        "lists a folder": _entry("models"),
        "model is a parent's file": _set("models", 0, "file", value="../../evil"),
        "model is an absolute file": _set("models", 0, "file", value="/etc/hostname"),
        "reference is a parent's file": _set("models", 0, "reference", "file", value="../evil.npy"),
        "input is a parent's file": _set("reference", "input", value="../evil.npy"),
        "image is the manifest": _set("reference", "image", value=MANIFEST),
        "deployment twice": _sealed(lambda document: document["models"].append(document["models"][0])),
        "note with an ANSI escape and a wrong type": _set("models", 0, "note", value=["\x1b[2J"]),
    },
    "arrays, digests made to fit": {
        "pickle": _array(_saved(np.array([_Evil()], dtype=object))),
        "pickle alone": _array(pickle.dumps(_Evil())),
        "asks for 4 TB": _array(_npy(_HEADER.format("<f4", "(1000000, 1000000)"))),
        "asks for 10^1000": _array(_npy(_HEADER.format("<f4", "(1" + "0" * 1000 + ",)"))),
        "overflows": _array(_npy(_HEADER.format("<f4", "(4294967296, 4294967296)"))),
        "negative shape": _array(_npy(_HEADER.format("<f4", "(-1, 8)"))),
        "no shape": _array(_npy(_HEADER.format("<f4", "()"))),
        "40 axes": _array(_npy(_HEADER.format("<f4", "(" + "1, " * 40 + ")"))),
        "header calls a function": _array(_npy("__import__('os').system('touch evil')")),
        "header of deep brackets": _array(_npy("(" * 60_000)),
        "header of 100,000 signs": _array(_npy("-" * 60_000 + "1")),
        "header of version 3": _array(_npy(_HEADER.format("<f4", "(1,)"), b"\x03\x00")),
        "header says 4 GB": _array(b"\x93NUMPY\x02\x00\xff\xff\xff\xff{}"),
        "header is text without an end": _array(_npy("'''")),
        "fields": _array(_saved(np.zeros(2, dtype=[("a", "<f4"), ("b", "<f4")]))),
        "float64": _array(_saved(np.zeros((1, 3, 8, 8)))),
        "big-endian": _array(_saved(np.zeros((1, 3, 8, 8), ">f4"))),
        "by columns": _array(_saved(np.asfortranarray(np.zeros((8, 8), np.float32)))),
        "half": _array(_saved(np.zeros((1, 3, 8, 8), np.float32))[:300]),
        "bytes behind": _array(_saved(np.zeros((1, 3, 8, 8), np.float32)) + b"evil"),
        "empty": _array(b""),
        "40 MB": _array(_saved(np.zeros(10 << 20, np.float32))),
    },
}
