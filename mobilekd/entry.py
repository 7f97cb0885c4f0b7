"""What the cache keeps of a finished stage beside its files, and whether the files are still those."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mobilekd.artifacts import digest_file, files_below

SCHEMA = "mobilekd.cache_entry/1"
UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)
"""What reading a damaged record may raise."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One finished stage.

    Attributes:
        path: The artifact directory.
        parts: What the key is the sha256 of; see keys.py.
        digest: Digest of the artifact.
        files: Posix path in the artifact -> sha256.
        created: UTC, ISO 8601, to the second.
        seconds: Wall time it took to make.
        size_bytes: Of all files together.
    """

    path: Path
    stage: str
    label: str
    key: str
    parts: Mapping[str, Any]
    digest: str
    files: Mapping[str, str]
    created: str
    seconds: float
    size_bytes: int


def read_entry(folder: Path) -> Entry:
    """Return the entry in a folder; raises one of `UNREADABLE` when its record is damaged or not there."""
    record = json.loads((folder / "entry.json").read_text(encoding="utf-8"))
    return Entry(
        path=folder / "artifact",
        stage=str(record["parts"]["stage"]),
        label=str(record["label"]),
        key=str(record["key"]),
        parts=record["parts"],
        digest=str(record["digest"]),
        files=dict(record["files"].items()),
        created=str(record["created"]),
        seconds=float(record["seconds"]),
        size_bytes=int(record["size_bytes"]),
    )


def damage_of(entry: Entry) -> str:
    """Return what is wrong with the files of an entry; empty when nothing is."""
    there = {path.as_posix() for path in files_below(entry.path)}
    if missing := sorted(entry.files.keys() - there):
        return f"{missing[0]} is missing"
    if extra := sorted(there - entry.files.keys()):
        return f"{extra[0]} does not belong to it"
    for name, digest in entry.files.items():
        if digest_file(entry.path / name) != digest:
            return f"{name} has other bytes"
    return "" if digest_of(entry.files) == entry.digest else "its digest is another"


def digest_of(files: Mapping[str, str]) -> str:
    """Return what `artifacts.digest_tree` gives for files of these names and digests, without reading them again."""
    lines = [f"{files[name]}  {name}\n" for name in sorted(files, key=str.encode)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()
