"""The test images of a bundle and what it was trained to say to them, where the cache still has them.

A bundle names both by digest and carries neither.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from mobilekd.cache import Cache

if TYPE_CHECKING:
    from mobilekd.benchmarking.agreement import Trained
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


def find_trained(bundle: Path, folder: Path, cache: Cache) -> "Trained | None":
    """Return what the quantized network of a bundle said to its test split; None where the cache has it no more.

    Args:
        bundle: A bundle.zip or a bundle folder; every digest in it is checked.
        folder: An existing directory to copy its table of scales into.
        cache: Where the network may be.
    """
    from mobilekd.benchmarking.agreement import read_trained
    from mobilekd.release.bundle import open_checked
    from mobilekd.release.manifest import MAX_MANIFEST_BYTES
    from mobilekd.release.provenance import PROVENANCE, parse_provenance
    from mobilekd.release.reruns import Copies

    files, manifest, _, _ = open_checked(bundle)
    if PROVENANCE not in files.names:
        return None
    content = files.read(PROVENANCE, limit_bytes=MAX_MANIFEST_BYTES)
    digest = parse_provenance(content, f"{bundle}: {PROVENANCE}").made.get("quantize")
    for entry in cache.entries("quantize"):
        checked = cache.find("quantize", entry.key).entry if entry.digest == digest else None
        if checked is not None:
            table = Copies(files, manifest, folder).copy("quant_table.json")
            return read_trained(checked.path / "test_logits.npy", table)
    return None
