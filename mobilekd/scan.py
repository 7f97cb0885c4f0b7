"""Digests of folders that people own, such as images: by content, remembering files that did not change."""

import hashlib
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

from mobilekd.artifacts import digest_file
from mobilekd.errors import ConfigError
from mobilekd.stage import Progress

_SCHEMA = "CREATE TABLE IF NOT EXISTS files (path TEXT PRIMARY KEY, state TEXT NOT NULL, digest TEXT NOT NULL)"
_BAR_FROM_FILES = 500


class Scanner:
    """Digests files and folders; what it learnt is kept in a small database, which may be lost at any time.

    Attributes:
        settle_s: A file younger than this is not remembered: a second write could leave its times as they are.
    """

    def __init__(self, database: Path, progress: Progress, *, settle_s: float = 1.0) -> None:
        self._database = database
        self._progress = progress
        self.settle_s = settle_s

    def digest(self, path: Path) -> str:
        """Return a sha256 of a file's content, or of the names and contents of all files below a folder.

        Links are followed, as a data loader follows them.

        Raises:
            ConfigError: It does not exist or can't be read.
        """
        top = Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would hide that a link now points elsewhere
        try:
            files = sorted(_walk(top))
            digests = self._digests(files)
        except OSError as cause:
            raise ConfigError(f"{cause.filename or path} can't be read: {cause.strerror}", code="MKD-202") from cause
        if not top.is_dir():
            return digests[0]
        names = (os.fsencode(os.path.relpath(file, top)) for file in files)
        sha = hashlib.sha256()
        for name, digest in sorted(zip(names, digests, strict=True)):
            sha.update(digest.encode() + b"  " + name + b"\n")
        return sha.hexdigest()

    def _digests(self, files: Sequence[str]) -> list[str]:
        """Return the digest of each file; only those that changed since the last time are read."""
        known = self._remembered(files)
        stats = {file: os.stat(file) for file in files}  # noqa: PTH116 - a million of them: no Path objects
        states = {file: _state(stat) for file, stat in stats.items()}
        changed = [file for file in files if known.get(file, ("",))[0] != states[file]]
        fresh = dict(zip(changed, self._read(changed), strict=True))
        settled = time.time() - self.settle_s
        self._remember((file, states[file], fresh[file]) for file in changed if stats[file].st_ctime <= settled)
        return [fresh[file] if file in fresh else known[file][1] for file in files]

    def _read(self, files: Sequence[str]) -> Iterator[str]:
        if len(files) < _BAR_FROM_FILES:
            yield from (digest_file(Path(file)) for file in files)
            return
        with self._progress.bar("reading what changed in the data", total=len(files)) as bar:
            for file in files:
                yield digest_file(Path(file))
                bar.advance()

    def _remembered(self, files: Sequence[str]) -> dict[str, tuple[str, str]]:
        """Return path -> (state, digest) of what is known."""
        if not files:
            return {}
        try:
            with closing(self._open()) as database:
                rows = database.execute(
                    "SELECT path, state, digest FROM files WHERE path BETWEEN ? AND ?", (min(files), max(files))
                )
                return {path: (state, digest) for path, state, digest in rows}
        except sqlite3.OperationalError:  # busy, or in a place that can't be written: only slower
            return {}
        except sqlite3.DatabaseError:
            self._database.unlink(missing_ok=True)
            return {}

    def _remember(self, rows: Iterator[tuple[str, str, str]]) -> None:
        try:
            with closing(self._open()) as database, database:
                database.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?)", rows)
        except (sqlite3.DatabaseError, UnicodeEncodeError):  # full disk, or a name that is not UTF-8: only slower
            return

    def _open(self) -> sqlite3.Connection:
        self._database.parent.mkdir(parents=True, exist_ok=True)
        database = sqlite3.connect(self._database, timeout=10)
        database.execute(_SCHEMA)
        return database


def _state(stat: os.stat_result) -> str:
    return f"{stat.st_size} {stat.st_mtime_ns} {stat.st_ino} {stat.st_ctime_ns}"


def _walk(top: Path) -> Iterator[str]:
    """Yield every file at or below a path, through links, each folder once."""
    if not top.is_dir():
        yield str(top)
        return
    seen: set[tuple[int, int]] = set()
    for folder, folders, files in os.walk(top, followlinks=True, onerror=_fail):
        stat = os.stat(folder)  # noqa: PTH116
        if (stat.st_dev, stat.st_ino) in seen:
            folders.clear()
            continue
        seen.add((stat.st_dev, stat.st_ino))
        yield from (os.path.join(folder, file) for file in files)  # noqa: PTH118


def _fail(cause: OSError) -> None:
    raise cause
