"""The second level of the cache: a store that several machines share. Never needed, never trusted, never fatal.

    stages/NAME/KEY.json       what a stage is made of: its parts, its files with sha256 and size; create-only
    objects/sha256/ab/abcd     the files

Files are put before the record that names them, so a record names what is there. All is create-only, so writers can't
hurt each other: of two machines that made different bytes for one key, the first wins and the second says so. What
comes from the store is hashed, and becomes an entry of the local cache by the same rename as what was made here.
Measurements are of one machine: they are never shared.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from mobilekd.artifacts import LatencyReport, canonical_json
from mobilekd.cache import Cache, Found
from mobilekd.entry import UNREADABLE, Entry, digest_of
from mobilekd.errors import ConfigError, StoreError, VerificationError
from mobilekd.keys import key_of
from mobilekd.stage import Stage
from mobilekd.store.interface import ObjectStore
from mobilekd.store.objects import fetch_object, is_digest, object_name, put_object, read_document
from mobilekd.store.opening import open_store

SCHEMA = "mobilekd.shared_entry/1"
STAGES = "stages/"
HIT = "shared cache"

_MEASURED = LatencyReport.__name__


class SharedFile(NamedTuple):
    """One file of a shared entry."""

    sha256: str
    bytes: int


@dataclass(frozen=True, slots=True)
class SharedEntry:
    """A finished stage in the store."""

    label: str
    key: str
    parts: Mapping[str, Any]
    digest: str
    files: Mapping[str, SharedFile]
    created: str
    seconds: float

    def local(self, path: Path) -> Entry:
        """Return the entry that it becomes in a local cache."""
        files = {name: one.sha256 for name, one in self.files.items()}
        size = sum(one.bytes for one in self.files.values())
        stage = str(self.parts["stage"])
        return Entry(
            path, stage, self.label, self.key, self.parts, self.digest, files, self.created, self.seconds, size
        )


@dataclass(slots=True, eq=False)
class SharedCache:
    """A store of finished stages; without a URL it holds nothing.

    Attributes:
        url: Of the store, as `open_store` takes it.
        say: Shows a line on stderr.
        hits: Labels of the stages that came from it.
        sent: Labels of the stages that went there.
        notes: Why it was not used, or what was wrong; each was said.
    """

    url: str = ""
    say: Callable[[str], None] = print
    hits: list[str] = field(default_factory=list)
    sent: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    _store: ObjectStore | None = None
    _is_off: bool = False
    _is_read_only: bool = False
    _known: dict[str, SharedEntry] = field(default_factory=dict)
    _damaged: set[str] = field(default_factory=set)

    def find(self, stage: Stage, parts: Mapping[str, Any], key: str, cache: Cache) -> Found:
        """Return what the store has for a key, without its files: an entry that is not in the local cache yet.

        Raises:
            ConfigError: The URL is no store's, or the settings of S3 do not do.
        """
        if not self._shares(stage, parts):
            return Found(None)
        shared, damage = self._record(stage.stage_name(), key)
        return Found(shared.local(cache.artifact_path(stage.stage_name(), key)) if shared else None, damage)

    def bring(self, stage: Stage, parts: Mapping[str, Any], key: str, cache: Cache, *, is_wanted: bool = True) -> Found:
        """Make the local entry of a key from the store; the caller holds the key. What is damaged is a miss.

        Raises:
            StageError: The disk is full.
        """
        if not is_wanted or not self._shares(stage, parts):
            return Found(None)
        shared, damage = self._record(stage.stage_name(), key)
        if shared is None:
            return Found(None, damage)
        try:
            entry = self._install(stage.label(), shared, cache)
        except (VerificationError, OSError) as cause:  # OSError: files of a record that can't lie in one folder
            self._damaged.add(key)
            return Found(None, self._told_of_damage(stage, str(cause)))
        except (StoreError, ConfigError) as cause:
            self._turn_off(cause.message)
            return Found(None)
        self.hits.append(stage.label())
        return Found(entry)

    def send(self, stage: Stage, entry: Entry) -> None:
        """Put a stage that was made here into the store, unless it is there."""
        if self._is_read_only or not self._shares(stage, entry.parts):
            return
        try:
            self._put(stage.label(), entry)
        except ConfigError as cause:
            self._is_read_only = True
            self._note(f"nothing is put into the shared cache: {cause.message}")
        except (StoreError, VerificationError) as cause:
            self._turn_off(cause.message)

    def facts(self) -> dict[str, Any] | None:
        """Return what build.json says of it; None without one."""
        if not self.url:
            return None
        return {"url": self.url, "hits": list(self.hits), "sent": list(self.sent), "notes": list(self.notes)}

    def _shares(self, stage: Stage, parts: Mapping[str, Any]) -> bool:
        """Return whether a stage is looked for and put there. What read a measurement has a key that no other has."""
        is_measured = stage.measures or any(kind == _MEASURED for kind, _ in parts["inputs"])
        return bool(self.url) and not self._is_off and not is_measured

    def _open(self) -> ObjectStore:
        if self._store is None:
            self._store = open_store(self.url)
        return self._store

    def _record(self, name: str, key: str) -> tuple[SharedEntry | None, str]:
        """Return the record of a key, and what is wrong with it."""
        if key in self._known and key not in self._damaged:
            return self._known[key], ""
        store = self._open()
        try:
            found = read_document(store, _record_name(name, key))
            if found is None:
                return None, ""
            shared = _parse(found[0], name, key)
        except (StoreError, ConfigError) as cause:
            self._turn_off(cause.message)
            return None, ""
        except VerificationError as cause:
            self._damaged.add(key)
            return None, f"in the {HIT}: {cause.message}"
        self._known[key] = shared
        return shared, ""

    def _install(self, label: str, shared: SharedEntry, cache: Cache) -> Entry:
        name, store = str(shared.parts["stage"]), self._open()
        with cache.workspace(name, shared.key) as (out, _):
            for path, file in shared.files.items():
                target = out / path
                target.parent.mkdir(parents=True, exist_ok=True)
                fetch_object(store, file.sha256, target, file.bytes)
            return cache.store(label, shared.parts, shared.key, shared.seconds)

    def _put(self, label: str, entry: Entry) -> None:
        store, name = self._open(), _record_name(entry.stage, entry.key)
        there = read_document(store, name)
        if there and entry.key not in self._damaged:
            self._compare(label, entry, there[0])
            return
        for path, sha256 in entry.files.items():
            self._put_file(store, entry.path / path, sha256, is_suspect=entry.key in self._damaged)
        record = _document(entry)
        is_first = store.cas(name, record, there[1]) if there else store.put_new(name, record)
        if is_first:
            self.sent.append(label)
        elif other := read_document(store, name):
            self._compare(label, entry, other[0])

    def _put_file(self, store: ObjectStore, path: Path, sha256: str, *, is_suspect: bool) -> None:
        if is_suspect:
            store.renew(object_name(sha256), path)
        else:
            put_object(store, path, sha256)

    def _compare(self, label: str, entry: Entry, record: bytes) -> None:
        """Say that another machine made other bytes of the same parts: a stage that does not repeat."""
        try:
            first = _parse(record, entry.stage, entry.key)
        except VerificationError:
            return
        if first.digest != entry.digest:
            self._note(
                f"{label}: other bytes than in the shared cache, which keeps its own (made {first.created}): "
                f"{entry.digest[:12]} here, {first.digest[:12]} there"
            )

    def _told_of_damage(self, stage: Stage, what: str) -> str:
        self.say(f"{stage.label()}: not from the {HIT}: {what}")
        return f"in the {HIT}: {what}"

    def _turn_off(self, why: str) -> None:
        self._is_off = True
        self._note(f"the shared cache was not used: {why}")

    def _note(self, line: str) -> None:
        self.notes.append(line)
        self.say(f"warning: {line}")


UNSHARED = SharedCache()
"""What a build has without --shared-cache."""


def files_of(store: ObjectStore, name: str) -> tuple[str, ...] | None:
    """Return the digests that the record of a stage names; None where it can't be read."""
    stage, _, file = name.removeprefix(STAGES).rpartition("/")
    try:
        found = read_document(store, name)
        files = _parse(found[0], stage, file.removesuffix(".json")).files if found else {}
        return tuple(one.sha256 for one in files.values())
    except VerificationError:
        return None


def _record_name(stage: str, key: str) -> str:
    return f"{STAGES}{stage}/{key}.json"


def _document(entry: Entry) -> bytes:
    files = {
        name: {"sha256": sha256, "bytes": (entry.path / name).stat().st_size} for name, sha256 in entry.files.items()
    }
    record = {
        "schema": SCHEMA,
        "label": entry.label,
        "key": entry.key,
        "parts": dict(entry.parts),
        "digest": entry.digest,
        "files": files,
        "created": entry.created,
        "seconds": entry.seconds,
    }
    return canonical_json(record).encode()


def _parse(content: bytes, stage: str, key: str) -> SharedEntry:
    """Return a record, after checking that it is of this key and names only files inside of an artifact.

    Raises:
        VerificationError: It is not.
    """
    where = _record_name(stage, key)
    try:
        record = json.loads(content)
        files = {str(name): SharedFile(str(one["sha256"]), int(one["bytes"])) for name, one in record["files"].items()}
        shared = SharedEntry(
            label=str(record["label"]),
            key=str(record["key"]),
            parts=record["parts"],
            digest=str(record["digest"]),
            files=files,
            created=datetime.fromisoformat(record["created"]).isoformat(timespec="seconds"),
            seconds=round(float(record["seconds"]) * 1000) / 1000,  # refuses NaN, which no entry can hold
        )
        fault = _fault(shared, record["schema"], stage, key)
    except UNREADABLE as cause:
        raise VerificationError(f"{where}: can't be read ({type(cause).__name__})") from cause
    if fault:
        raise VerificationError(f"{where}: {fault}")
    return shared


def _fault(shared: SharedEntry, schema: str, stage: str, key: str) -> str:
    if schema != SCHEMA:
        return f"is {schema!r}, not {SCHEMA!r}"
    if shared.key != key or shared.parts["stage"] != stage or key_of(shared.parts) != key:
        return "is of another key"
    if bad := [name for name in shared.files if not _is_inside(name)]:
        return f"names the file {bad[0]!r}"
    if not all(is_digest(one.sha256) for one in shared.files.values()):
        return "names a file by something that is no sha256"
    if digest_of({name: one.sha256 for name, one in shared.files.items()}) != shared.digest:
        return "its digest is another"
    return ""


def _is_inside(name: str) -> bool:
    """Return whether a name stays in the folder that it is written to."""
    path = PurePosixPath(name)
    plain = path.as_posix() == name and not path.is_absolute() and not set(path.parts) & {"", ".", ".."}
    return bool(name) and plain and not any(bad in name for bad in ("\\", "\0", ":"))
