"""The test images of a bundle, where the cache still has them: a bundle names them by digest and carries none."""

from pathlib import Path
from typing import TYPE_CHECKING

from mobilekd.cache import Cache

if TYPE_CHECKING:
    from mobilekd.release.manifest import DatasetEntry


def find_test_split(dataset: "DatasetEntry", cache: Cache) -> Path | None:
    """Return the cached data set whose test split has the digests that the bundle names; None where there is none."""
    if not dataset.test_files:
        return None
    for entry in cache.entries("data"):
        if all(entry.files.get(name) == digest for name, digest in dataset.test_files.items()):
            checked = cache.find("data", entry.key).entry
            if checked is not None:
                return checked.path
    return None
