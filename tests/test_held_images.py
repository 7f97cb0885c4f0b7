"""What a bundle was trained to say is found by the digest that its provenance names, and by nothing else."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mobilekd.artifacts import MadeBy, QatStudent
from mobilekd.cache import Cache
from mobilekd.errors import VerificationError
from mobilekd.held_images import find_trained
from mobilekd.keys import key_of
from mobilekd.release.bundle import unpack_models
from mobilekd.release.provenance import BuildFacts
from mobilekd.release.reruns import Copies
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
    """Return a function that packs a bundle of a quantized network with a digest into a folder."""

    def pack(digest: str) -> Path:
        made = (QatStudent(tmp_path / "student", digest, MadeBy("quantize", "quantize", 8, {}, {}, {})),)
        return Workshop(tmp_path / "work").bundle(options=replace(OPTIONS, build=BuildFacts(made=made))) / "bundle"

    return pack


def opened(bundle: Path, folder: Path) -> Copies:
    return unpack_models(bundle, folder).copies


def test_the_trained_logits_of_a_bundle_are_found_with_their_step(
    cache: Cache, bundled: Bundled, tmp_path: Path
) -> None:
    (entry,) = cache.entries("quantize")
    found = find_trained(opened(bundled(entry.digest), tmp_path), cache)
    assert found is not None
    np.testing.assert_array_equal(found.logits, LOGITS)
    assert found.step > 0


def test_those_of_another_network_are_not_taken(cache: Cache, bundled: Bundled, tmp_path: Path) -> None:
    assert find_trained(opened(bundled("0" * 64), tmp_path), cache) is None


def test_damaged_logits_are_not_taken(cache: Cache, bundled: Bundled, tmp_path: Path) -> None:
    (entry,) = cache.entries("quantize")
    (entry.path / "test_logits.npy").write_bytes(b"other")
    assert find_trained(opened(bundled(entry.digest), tmp_path), cache) is None


def test_a_bundle_is_not_digested_a_second_time_for_them(cache: Cache, bundled: Bundled, tmp_path: Path) -> None:
    (entry,) = cache.entries("quantize")
    bundle = bundled(entry.digest)
    copies = opened(bundle, tmp_path)
    (bundle / "labels.txt").write_text("changed since it was opened")
    assert find_trained(copies, cache) is not None


def test_a_table_of_scales_that_changed_since_the_bundle_was_opened_is_refused(
    cache: Cache, bundled: Bundled, tmp_path: Path
) -> None:
    (entry,) = cache.entries("quantize")
    bundle = bundled(entry.digest)
    copies = opened(bundle, tmp_path)
    (bundle / "quant_table.json").write_text("{}")
    with pytest.raises(VerificationError, match=r"quant_table\.json: sha256 is"):
        find_trained(copies, cache)
