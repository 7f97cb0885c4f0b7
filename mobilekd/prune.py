"""How much the cache keeps, and taking away what nobody used."""

import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mobilekd.cache import alone_in_cache

_DAY_S = 86_400
_ASIDE = ("scratch", "soft-labels")


@dataclass(frozen=True, slots=True)
class Usage:
    """What one stage keeps, what unfinished builds left ("scratch"), or answers of teachers ("soft-labels")."""

    name: str
    entries: int
    size_bytes: int


def usage(root: Path) -> tuple[Usage, ...]:
    """Return what each stage keeps, then scratch directories and soft labels."""
    stages = [_usage(folder.name, folder) for folder in sorted((root / "stages").glob("*"))]
    return (*stages, *(_usage(name, root / name) for name in _ASIDE))


def prune(root: Path, *, unused_days: float) -> int:
    """Delete what was not used for some days, and return the freed bytes.

    Raises:
        ConfigError: A build is running in this cache.
    """
    if not root.is_dir():
        return 0
    freed = 0
    with alone_in_cache(root):
        for folder in _unused(root, time.time() - unused_days * _DAY_S):
            freed += _size(folder)
            shutil.rmtree(folder, ignore_errors=True)
    return freed


def _unused(root: Path, before: float) -> Iterator[Path]:
    """Yield folders last used before a time, and all that a dead build left half-written."""
    for folder in sorted((root / "stages").glob("*/*")):
        record = folder / "entry.json"
        if folder.suffix in {".partial", ".trash"} or not record.is_file() or record.stat().st_mtime <= before:
            yield folder
    for folder in sorted(one for name in _ASIDE for one in (root / name).glob("*")):
        if folder.stat().st_mtime <= before:
            yield folder


def _usage(name: str, folder: Path) -> Usage:
    return Usage(name, len(list(folder.glob("*"))), _size(folder))


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
