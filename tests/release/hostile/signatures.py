"""Hostile signature files, and good ones beside bundles that were changed; a trusted key is given."""

import base64
import json
import os
import shutil
from collections.abc import Callable
from typing import Any

from mobilekd.artifacts import canonical_json, digest_file
from mobilekd.release.signing_keys import PrivateKey

from .rawzip import Item, zip_bytes
from .site import Case, Site, Words, seal

Change = Callable[[dict[str, Any]], object]


def _text(content: bytes) -> Case:
    return lambda site: site.with_signature(content)


def _envelope(change: Change) -> Case:
    """Change the good envelope, and write it in the canonical form."""

    def build(site: Site) -> Words:
        document = site.signature()
        change(document)
        return site.with_signature(canonical_json(document))

    return build


def _set(key: str, value: Any) -> Case:
    return _envelope(lambda document: document.update({key: value}))


def _sig(**changes: Any) -> Case:
    return _envelope(lambda document: document["signatures"][0].update(changes))


def _statement(change: Change) -> Case:
    """Let the trusted key sign a changed statement: even that is not read loosely."""

    def build(site: Site) -> Words:
        document = site.statement()
        change(document)
        return site.with_payload(canonical_json(document).encode())

    return build


def _payload(content: bytes) -> Case:
    return lambda site: site.with_payload(content)


def _subject(**changes: Any) -> Case:
    return _statement(lambda document: document["subject"][1].update(changes))


def _by(choose: Callable[[Site], PrivateKey], claimed: Callable[[Site], PrivateKey]) -> Case:
    """Let one key sign, and claim another's id."""

    def build(site: Site) -> Words:
        words = site.with_payload(canonical_json(site.statement()).encode(), choose(site))
        path = site.root / "s.sig.json"
        document = json.loads(path.read_text())
        document["signatures"][0]["keyid"] = claimed(site).keyid
        path.write_text(canonical_json(document))
        return words

    return build


def _edited(document: dict[str, Any]) -> None:
    """Let the payload name another archive."""
    statement = json.loads(base64.b64decode(document["payload"]))
    statement["subject"][0]["digest"]["sha256"] = "0" * 64
    document["payload"] = base64.b64encode(canonical_json(statement).encode()).decode()


def _other_bits(document: dict[str, Any]) -> None:
    """Change bits at the end of a base64 text that stand for no byte."""
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    sig = document["signatures"][0]["sig"]
    document["signatures"][0]["sig"] = sig[:-3] + letters[letters.index(sig[-3]) ^ 1] + "=="


def _as_file(make: Callable[[Any], object]) -> Case:
    def build(site: Site) -> Words:
        words = site.with_signature(b"")
        path = site.root / "s.sig.json"
        path.unlink()
        make(path)
        return words

    return build


def _huge(path: Any) -> None:
    with path.open("wb") as stream:
        stream.truncate(100 << 20)


def _changed(change: Callable[[Any], object], *, packed: bool) -> Case:
    """Change the folder, make every digest in it fit, and show the signature of the good bundle."""

    def build(site: Site) -> Words:
        folder = site.folder()
        change(folder)
        return site.signed(site.packed(folder) if packed else folder)

    return build


def _relabelled(folder: Any) -> None:
    """Change a file and all digests that the bundle itself carries."""
    (folder / "labels.txt").write_text("evil\n" * 10)
    manifest = json.loads((folder / "manifest.json").read_text())
    for entry in manifest["files"]:
        path = folder / entry["path"]
        entry.update(bytes=path.stat().st_size, sha256=digest_file(path))
    (folder / "manifest.json").write_text(canonical_json(manifest))
    seal(folder)


CHANGES: dict[str, Callable[[Any], object]] = {
    "a file changed": lambda folder: (folder / "labels.txt").write_text("evil"),
    "a file and all digests changed": _relabelled,
    "a file added": lambda folder: (folder / "evil.py").touch(),
    "a file gone": lambda folder: (folder / "labels.txt").unlink(),
    "a file renamed": lambda folder: (folder / "labels.txt").rename(folder / "label.txt"),
    "two files swapped": lambda folder: [
        shutil.move(folder / "models/mnn-int8.mnn", folder / "x"),
        shutil.move(folder / "models/tflite-int8.tflite", folder / "models/mnn-int8.mnn"),
        shutil.move(folder / "x", folder / "models/tflite-int8.tflite"),
    ],
}


def _one_file(site: Site) -> Words:
    return site.signed(site.archive(zip_bytes([Item(b"evil", b"evil")])))


def _spaced(site: Site) -> Words:
    return site.with_signature(json.dumps(site.signature()))


def _key_twice(site: Site) -> Words:
    good = (site.good / "x.zip.sig.json").read_text()
    return site.with_signature(good.replace('  "payload"', '  "payload": "evil",\n  "payload"', 1))


def _url_safe(document: dict[str, Any]) -> None:
    document["signatures"][0]["sig"] = "-_" + document["signatures"][0]["sig"][2:]


CASES: dict[str, dict[str, Case]] = {
    "signature: file": {
        "missing": _as_file(lambda path: None),
        "empty": _text(b""),
        "pipe": _as_file(os.mkfifo),
        "folder": _as_file(lambda path: path.mkdir()),
        "device": _as_file(lambda path: path.symlink_to("/dev/zero")),
        "link to nothing": _as_file(lambda path: path.symlink_to("nowhere")),
        "link to itself": _as_file(lambda path: path.symlink_to(path)),
        "100 MB": _as_file(_huge),
        "half": lambda site: site.with_signature((site.good / "x.zip.sig.json").read_bytes()[:999]),
        "byte behind": lambda site: site.with_signature((site.good / "x.zip.sig.json").read_bytes() + b" "),
        "not JSON": _text(b"evil"),
        "null": _text(b"null\n"),
        "a list": _text(b"[]\n"),
        "NUL bytes": _text(bytes(1000)),
        "invalid UTF-8": _text(b'{"payload": "\xff"}'),
        "lone surrogate": _text(b'{\n  "payload": "\\ud800"\n}\n'),
        "4,000,000 deep": _text(b"[" * 4_000_000),
        "100,000 deep": _text(b"[" * 100_000 + b"]" * 100_000),
        "1,000,000 empty lists": _text(b"[" + b"[]," * 1_000_000 + b"[]]"),
        "number of 1,000,000 digits": _text(b'{"payload": ' + b"9" * 1_000_000 + b"}"),
        "not a number": _text(b'{\n  "payload": NaN\n}\n'),
        "4 MB text beyond the BMP": _text(b'{\n  "payload": "' + b"x" * 4_000_000 + "\U0001f600".encode() + b'"\n}\n'),
        "key twice": _key_twice,
        "other spaces": _spaced,
    },
    "signature: envelope": {
        "other payloadType": _set("payloadType", "application/json"),
        "payloadType with an ANSI escape": _set("payloadType", "\x1b[2J"),
        "extra field": _set("evil", 1),
        "extra field of a signature": _sig(evil=1),
        "no payload": _envelope(lambda document: document.pop("payload")),
        "payload is a number": _set("payload", 1),
        "no signature": _set("signatures", []),
        "signatures is an object": _set("signatures", {}),
        "signature is null": _set("signatures", [None]),
        "two signatures": _envelope(lambda document: document["signatures"].append(document["signatures"][0])),
        "no keyid": _envelope(lambda document: document["signatures"][0].pop("keyid")),
        "empty keyid": _sig(keyid=""),
        "keyid in capitals": _envelope(
            lambda document: document["signatures"][0].update(keyid=document["signatures"][0]["keyid"].upper())
        ),
        "keyid of 1 MB": _sig(keyid="a" * 1_000_000),
        "keyid of nobody": _sig(keyid="0" * 64),
        "empty signature": _sig(sig=""),
        "signature of zeros": _sig(sig=base64.b64encode(bytes(64)).decode()),
        "signature of 63 bytes": _sig(sig=base64.b64encode(bytes(63)).decode()),
        "signature not base64": _sig(sig="evil!"),
        "signature not ASCII": _sig(sig="\u00e9" * 88),
        "signature in another base64": _envelope(_url_safe),
        "signature with bits of no byte": _envelope(_other_bits),
        "payload edited": _envelope(_edited),
        "payload empty": _set("payload", ""),
        "another key": _by(lambda site: site.other, lambda site: site.other),
        "another key under the trusted id": _by(lambda site: site.other, lambda site: site.key),
        "the trusted key under another id": _by(lambda site: site.key, lambda site: site.other),
    },
    "signature: statement, really signed": {
        "empty": _payload(b""),
        "not JSON": _payload(b"evil"),
        "not canonical": lambda site: site.with_payload(json.dumps(site.statement()).encode()),
        "100,000 deep": _payload(b"[" * 100_000 + b"]" * 100_000),
        "other type": _statement(lambda document: document.update(_type="https://in-toto.io/Statement/v0.1")),
        "other predicate type": _statement(lambda document: document.update(predicateType="evil")),
        "predicate is a list": _statement(lambda document: document.update(predicate=[])),
        "extra field": _statement(lambda document: document.update(evil=1)),
        "no subject": _statement(lambda document: document.update(subject=[])),
        "archive only": _statement(lambda document: document["subject"].__delitem__(slice(1, None))),
        "archive not first": _statement(lambda document: document["subject"].reverse()),
        "subject twice": _statement(lambda document: document["subject"].insert(1, document["subject"][1])),
        "archive twice": _statement(lambda document: document["subject"].insert(1, document["subject"][0])),
        "a file left out": _statement(lambda document: document["subject"].pop()),
        "a parent's file": _subject(name="../evil"),
        "an absolute file": _subject(name="/etc/passwd"),
        "name is a number": _subject(name=1),
        "extra field of a subject": _subject(uri="https://example.com"),
        "digest by sha1": _subject(digest={"sha1": "0" * 40}),
        "digest too short": _subject(digest={"sha256": "0"}),
        "digest of another file": _subject(digest={"sha256": "0" * 64}),
        "two digests": _subject(digest={"sha256": "0" * 64, "sha512": "0" * 128}),
    },
    "signed archive": {
        **{name: _changed(change, packed=True) for name, change in CHANGES.items()},
        "another archive": _one_file,
        "no archive": lambda site: site.signed(site.archive(b"evil")),
    },
    "signed folder": {name: _changed(change, packed=False) for name, change in CHANGES.items()},
}
