"""Key -> finished directory. Written beside, then renamed; a broken entry is a miss, never fatal.

    stages/NAME/KEY/entry.json     what was made from what, with the sha256 of every file
    stages/NAME/KEY/artifact/      the files
    stages/NAME/KEY.partial/       being written; thrown away when its maker ends
    scratch/KEY/                   checkpoints of a stage that has not finished; survives a kill
    locks/KEY.lock                 held while a key is looked up or made: of two builds, one works and one waits
    files.sqlite                   digests of data files that did not change (scan.py)

A process may be killed anywhere: until the rename there is no entry, after it there is a whole one.
"""

import errno
import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mobilekd.artifacts import canonical_json, digest_file, files_below
from mobilekd.entry import SCHEMA, UNREADABLE, Entry, damage_of, digest_of, read_entry
from mobilekd.errors import ConfigError, StageError
from mobilekd.locks import try_lock
from mobilekd.paths import default_cache, free_bytes

_USERS_LOCK = "users.lock"
_WAIT_STEP_S = 0.1
_TELL_AFTER_STEPS = 5


@dataclass(frozen=True, slots=True)
class Found:
    """The outcome of a look-up: an entry, or none; `damage` says what is wrong with the one that was there."""

    entry: Entry | None
    damage: str = ""


class Cache:
    """A folder of finished stages."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @staticmethod
    def default_root() -> Path:
        """Return the folder that is used where none is named; see `default_cache`."""
        return default_cache()

    def find(self, stage: str, key: str) -> Found:
        """Return the entry of a key after comparing every file with its recorded digest."""
        folder = self._folder(stage, key)
        if not folder.is_dir():
            return Found(None)
        try:
            entry = read_entry(folder)
            damage = damage_of(entry)
        except UNREADABLE as cause:
            return Found(None, f"entry.json can't be read ({type(cause).__name__})")
        if damage or entry.key != key:
            return Found(None, damage or "entry.json is of another key")
        return Found(entry)

    def note_use(self, entry: Entry) -> None:
        """Remember that an entry was used now, for `mobilekd cache prune`; a cache that is read-only may forget it."""
        with suppress(OSError):
            os.utime(entry.path.parent / "entry.json")

    def entries(self, stage: str) -> list[Entry]:
        """Return the entries of a stage that can be read, newest first; their files are not checked."""
        found = []
        for folder in sorted((self.root / "stages" / stage).glob("*")):
            try:
                found.append(read_entry(folder))
            except UNREADABLE:  # damaged or unfinished: not an entry
                continue
        return sorted(found, key=lambda entry: entry.created, reverse=True)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Keep `mobilekd cache prune` out while a build reads and writes."""
        with full_disk_is_told(self.root), self._lock_file(self.root / _USERS_LOCK) as descriptor:
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            yield

    @contextmanager
    def locked(self, key: str, on_wait: Callable[[], None]) -> Iterator[None]:
        """Hold a key; another process that wants it waits, and calls `on_wait` once."""
        with self._lock_file(self.root / "locks" / f"{key}.lock") as descriptor:
            steps = 0
            while not try_lock(descriptor):
                steps += 1
                if steps == _TELL_AFTER_STEPS:
                    on_wait()
                time.sleep(_WAIT_STEP_S)
            yield

    @contextmanager
    def workspace(self, stage: str, key: str, *, keep_scratch: bool = True) -> Iterator[tuple[Path, Path]]:
        """Give an empty directory to fill and a scratch directory; hold the key's lock around it.

        What was not stored when the context ends is thrown away; scratch stays until the entry is stored.

        Raises:
            StageError: The disk is full.
        """
        partial, scratch = self._partial(stage, key), self._scratch(key)
        if not keep_scratch:
            shutil.rmtree(scratch, ignore_errors=True)
        shutil.rmtree(partial, ignore_errors=True)
        try:
            with full_disk_is_told(self.root):
                (partial / "artifact").mkdir(parents=True)
                scratch.mkdir(parents=True, exist_ok=True)
                yield partial / "artifact", scratch
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def store(self, label: str, parts: Mapping[str, Any], key: str, seconds: float) -> Entry:
        """Turn the filled workspace of a key into its entry, in one rename."""
        stage = str(parts["stage"])
        partial, folder = self._partial(stage, key), self._folder(stage, key)
        artifact = partial / "artifact"
        files = {path.as_posix(): digest_file(artifact / path) for path in files_below(artifact)}
        record = {
            "schema": SCHEMA,
            "label": label,
            "key": key,
            "parts": dict(parts),
            "digest": digest_of(files),
            "files": files,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(seconds, 3),
            "size_bytes": sum((artifact / name).stat().st_size for name in files),
        }
        _write_durably(partial / "entry.json", canonical_json(record))
        self.discard(stage, key)
        partial.rename(folder)
        _sync_folder(folder.parent)
        shutil.rmtree(self._scratch(key), ignore_errors=True)
        return read_entry(folder)

    def discard(self, stage: str, key: str) -> None:
        """Take an entry away: first out of sight in one rename, then for good."""
        folder = self._folder(stage, key)
        if folder.exists():
            aside = folder.with_name(f"{key}.{os.getpid()}.trash")
            folder.rename(aside)
            shutil.rmtree(aside, ignore_errors=True)

    def artifact_path(self, stage: str, key: str) -> Path:
        """Return where the files of a key lie, or would."""
        return self._folder(stage, key) / "artifact"

    def _folder(self, stage: str, key: str) -> Path:
        return self.root / "stages" / stage / key

    def _partial(self, stage: str, key: str) -> Path:
        return self.root / "stages" / stage / f"{key}.partial"

    def _scratch(self, key: str) -> Path:
        return self.root / "scratch" / key

    @contextmanager
    def _lock_file(self, path: Path) -> Iterator[int]:
        """Give the descriptor of an open lock file."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            stream = path.open("w")
        except (PermissionError, NotADirectoryError, FileExistsError) as cause:
            hint = "choose another place with --cache DIR or MOBILEKD_CACHE"
            raise ConfigError(
                f"the cache {self.root} can't be written: {cause.strerror}", hint=hint, code="MKD-260"
            ) from cause
        with stream:
            yield stream.fileno()


@contextmanager
def alone_in_cache(root: Path) -> Iterator[None]:
    """Keep builds out of a cache while something is deleted from it.

    Raises:
        ConfigError: A build is running.
    """
    with (root / _USERS_LOCK).open("w") as stream:
        if not try_lock(stream.fileno()):
            raise ConfigError(f"a build is running in {root}", hint="wait for its end", code="MKD-261")
        yield


@contextmanager
def full_disk_is_told(folder: Path) -> Iterator[None]:
    """Turn the many faces of a full disk into one error that names the place and the free bytes."""
    try:
        yield
    except (OSError, RuntimeError) as cause:  # torch.save tells a full disk as a RuntimeError without errno
        if not _is_disk_full(cause, folder):
            raise
        place = getattr(cause, "filename", None) or folder
        free = free_bytes(folder)
        hint = "free some space (mobilekd cache prune), or choose another place with --cache DIR"
        raise StageError(f"no space left for {place}: {free:,} bytes are free", hint=hint, code="MKD-430") from cause


def _is_disk_full(cause: OSError | RuntimeError, folder: Path) -> bool:
    if isinstance(cause, OSError):
        return cause.errno in {errno.ENOSPC, errno.EDQUOT}
    return free_bytes(folder) < 1 << 20


def _write_durably(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
