"""The test images of a bundle and what it was trained to say to them, where the cache still has them.

A bundle names both by digest and carries neither.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from mobilekd.cache import Cache

if TYPE_CHECKING:
    from mobilekd.benchmarking.agreement import Trained
    from mobilekd.release.manifest import DatasetEntry
    from mobilekd.release.reruns import Copies


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


def find_trained(copies: "Copies", cache: Cache) -> "Trained | None":
    """Return what the quantized network of a bundle said to its test split; None where the cache has it no more.

    Args:
        copies: Of a bundle whose digests were checked when it was opened; its table of scales is copied out.
        cache: Where the network may be.

    Raises:
        VerificationError: The table was changed since then.
    """
    from mobilekd.benchmarking.agreement import read_trained
    from mobilekd.release.manifest import MAX_MANIFEST_BYTES
    from mobilekd.release.provenance import PROVENANCE, parse_provenance

    files = copies.files
    if PROVENANCE not in files.names:
        return None
    content = files.read(PROVENANCE, limit_bytes=MAX_MANIFEST_BYTES)
    digest = parse_provenance(content, f"{files.path}: {PROVENANCE}").made.get("quantize")
    for entry in cache.entries("quantize"):
        checked = cache.find("quantize", entry.key).entry if entry.digest == digest else None
        if checked is not None:
            return read_trained(checked.path / "test_logits.npy", copies.copy("quant_table.json"))
    return None
