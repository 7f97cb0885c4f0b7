"""What a bundle was trained to say is found by the digest that its provenance names, and by nothing else."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mobilekd.artifacts import MadeBy, QatStudent
from mobilekd.cache import Cache
from mobilekd.held_images import find_trained
from mobilekd.keys import key_of
from mobilekd.release.provenance import BuildFacts
from tests.release.workshop import OPTIONS, Workshop

LOGITS = np.float32([[1, 2], [3, 4]])
Bundled = Callable[[str], Path]


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    """Give a cache with one quantized network."""
    found, parts = Cache(tmp_path / "cache"), {"stage": "quantize"}
    key = key_of(parts)
    with found.workspace("quantize", key) as (artifact, _):
        np.save(artifact / "test_logits.npy", LOGITS)
        found.store("quantize", parts, key, 1.0)
    return found


@pytest.fixture
def bundled(tmp_path: Path) -> Bundled:
    """Return a function that packs a bundle of a quantized network with a digest."""

    def pack(digest: str) -> Path:
        made = (QatStudent(tmp_path / "student", digest, MadeBy("quantize", "quantize", 8, {}, {}, {})),)
        return Workshop(tmp_path / "work").bundle(options=replace(OPTIONS, build=BuildFacts(made=made))) / "bundle.zip"

    return pack


def test_the_trained_logits_of_a_bundle_are_found_with_their_step(
    cache: Cache, bundled: Bundled, tmp_path: Path
) -> None:
    (entry,) = cache.entries("quantize")
    found = find_trained(bundled(entry.digest), tmp_path, cache)
    assert found is not None
    np.testing.assert_array_equal(found.logits, LOGITS)
    assert found.step > 0


def test_those_of_another_network_are_not_taken(cache: Cache, bundled: Bundled, tmp_path: Path) -> None:
    assert find_trained(bundled("0" * 64), tmp_path, cache) is None


def test_damaged_logits_are_not_taken(cache: Cache, bundled: Bundled, tmp_path: Path) -> None:
    (entry,) = cache.entries("quantize")
    (entry.path / "test_logits.npy").write_bytes(b"other")
    assert find_trained(bundled(entry.digest), tmp_path, cache) is None
