"""A store in a local folder. Objects appear by a hard link of a finished file; documents change under a lock.

.mobilekd-store/lock     held while a document is compared and replaced
.mobilekd-store/new/     being written; `mobilekd store prune` takes away what a kill left
"""

import errno
import hashlib
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from mobilekd.errors import ConfigError, StoreError
from mobilekd.locks import try_lock
from mobilekd.store.interface import MAX_DOCUMENT_BYTES, Head, ObjectStore, Stored

PRIVATE = ".mobilekd-store"
"""Holds the lock and unfinished files; no object has a name below it."""

_CHUNK_BYTES = 1 << 20
_LOCK_S = 10.0
_LOCK_STEP_S = 0.005
_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
_FULL = {errno.ENOSPC, errno.EDQUOT}


class FolderStore(ObjectStore):
    """A folder that several processes write at once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.url = str(root)

    def put_new(self, name: str, content: bytes | Path) -> bool:
        """Create an object by linking a finished file to its name."""
        with self._failures_told(name):
            place = self.root / name
            if place.exists():
                return False
            with self._finished(content) as fresh:
                place.parent.mkdir(parents=True, exist_ok=True)
                try:
                    place.hardlink_to(fresh)
                except FileExistsError:
                    return False
                except OSError as cause:
                    if cause.errno not in _NO_LINKS:
                        raise
                    hint = "create-only needs them: put the store on another file system, or into a bucket"
                    raise ConfigError(f"{self.url}: the file system has no hard links", hint=hint) from cause
            _sync_folder(place.parent)
            return True

    def get(self, name: str) -> Stored | None:
        """Return an object; a document is read at once, with the sha256 of its content as its tag."""
        with self._failures_told(name):
            try:
                size = (self.root / name).stat().st_size
                if size > MAX_DOCUMENT_BYTES:
                    return Stored("", self._chunks(name))
                content = (self.root / name).read_bytes()
            except FileNotFoundError:
                return None
        return Stored(hashlib.sha256(content).hexdigest(), iter((content,)))

    def head(self, name: str) -> Head | None:
        """Return size and time of an object."""
        with self._failures_told(name):
            try:
                facts = (self.root / name).stat()
            except FileNotFoundError:
                return None
        return Head(name, facts.st_size, datetime.fromtimestamp(facts.st_mtime, UTC))

    def cas(self, name: str, content: bytes, tag: str) -> bool:
        """Compare and replace under the store's lock."""
        with self._failures_told(name), self._locked():
            there = self.get(name)
            if there is None or there.tag != tag:
                return False
            self._replace(name, content)
            return True

    def list(self, prefix: str) -> Iterator[Head]:
        """Yield every object below a folder; what vanishes meanwhile is left out."""
        with self._failures_told(prefix):
            paths = [path.relative_to(self.root) for path in (self.root / prefix).rglob("*") if path.is_file()]
        heads = (self.head(path.as_posix()) for path in paths if path.parts[0] != PRIVATE)
        yield from (one for one in heads if one is not None)

    def renew(self, name: str, content: bytes | Path) -> None:
        """Rename a finished file over an object."""
        with self._failures_told(name):
            self._replace(name, content)

    def delete(self, name: str) -> None:
        """Unlink an object."""
        with self._failures_told(name):
            (self.root / name).unlink(missing_ok=True)

    def unfinished(self) -> Iterator[Path]:
        """Yield files that were being written; of a living process, or of a dead one."""
        yield from (self.root / PRIVATE / "new").glob("*")

    def _replace(self, name: str, content: bytes | Path) -> None:
        place = self.root / name
        with self._finished(content) as fresh:
            place.parent.mkdir(parents=True, exist_ok=True)
            fresh.replace(place)
        _sync_folder(place.parent)

    @contextmanager
    def _finished(self, content: bytes | Path) -> Iterator[Path]:
        """Give a file with this content that is on the disk; it is gone when the context ends."""
        fresh = self.root / PRIVATE / "new" / uuid.uuid4().hex
        fresh.parent.mkdir(parents=True, exist_ok=True)
        try:
            with fresh.open("xb") as out:
                if isinstance(content, bytes):
                    out.write(content)
                else:
                    with content.open("rb") as stream:
                        shutil.copyfileobj(stream, out, _CHUNK_BYTES)
                out.flush()
                os.fsync(out.fileno())
            yield fresh
        finally:
            fresh.unlink(missing_ok=True)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        lock = self.root / PRIVATE / "lock"
        lock.parent.mkdir(parents=True, exist_ok=True)
        deadline = time.monotonic() + _LOCK_S
        with lock.open("w") as stream:
            while not try_lock(stream.fileno()):
                if time.monotonic() > deadline:
                    raise StoreError(f"{lock} is held for {_LOCK_S:g} s", hint="wait for the other writer, or end it")
                time.sleep(_LOCK_STEP_S)
            yield

    def _chunks(self, name: str) -> Iterator[bytes]:
        with self._failures_told(name), (self.root / name).open("rb") as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                yield chunk

    @contextmanager
    def _failures_told(self, name: str) -> Iterator[None]:
        try:
            yield
        except OSError as cause:
            where, why = f"{self.url}: {name}", cause.strerror or type(cause).__name__
            if cause.errno in _FULL:
                raise StoreError(f"{where}: no space left", hint=f"mobilekd store prune {self.url}") from cause
            if cause.errno in _DENIED:
                raise ConfigError(f"{where}: {why}", hint="ask for write access, or name another store") from cause
            if isinstance(cause, NotADirectoryError | FileExistsError | IsADirectoryError):
                raise ConfigError(f"{where}: {why}", hint="a store is a folder of its own") from cause
            raise StoreError(f"{where}: {why}", hint="is the disk mounted, and does it know hard links?") from cause


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
