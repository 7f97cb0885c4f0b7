import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mobilekd import prune
from mobilekd.artifacts import digest_tree
from mobilekd.cache import Cache
from mobilekd.entry import Entry
from mobilekd.errors import ConfigError
from mobilekd.keys import key_of

PARTS = {"stage": "train", "version": 1, "options": {"epochs": 3}, "inputs": [], "sources": {}, "tools": {}}
KEY = key_of(PARTS)


def stored(cache: Cache, files: dict[str, bytes]) -> Entry:
    with cache.workspace("train", KEY) as (out, _):
        for name, content in files.items():
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            (out / name).write_bytes(content)
        return cache.store("train", PARTS, KEY, 1.5)


@pytest.fixture
def entry(cache: Cache) -> Entry:
    return stored(cache, {"a": b"content of a", "folder/b": b"content of b"})


def test_an_unknown_key_is_a_miss_without_a_reason(cache: Cache) -> None:
    found = cache.find("train", KEY)
    assert (found.entry, found.damage) == (None, "")


def test_a_stored_entry_is_found_with_the_digest_of_its_tree(cache: Cache, entry: Entry) -> None:
    assert cache.find("train", KEY).entry == entry
    assert entry.digest == digest_tree(entry.path)
    assert entry.size_bytes == 24


def test_storing_leaves_neither_partial_nor_scratch(cache: Cache, entry: Entry) -> None:
    assert [path.name for path in (cache.root / "stages" / "train").iterdir()] == [KEY]
    assert list((cache.root / "scratch").iterdir()) == []


@given(position=st.integers(0, 11), bit=st.integers(0, 7))
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_flipped_bit_is_a_miss(cache: Cache, position: int, bit: int) -> None:
    entry = stored(cache, {"a": b"content of a"})
    content = bytearray(b"content of a")
    content[position] ^= 1 << bit
    (entry.path / "a").write_bytes(content)
    assert cache.find("train", KEY).damage == "a has other bytes"


def test_a_missing_file_is_a_miss_that_names_it(cache: Cache, entry: Entry) -> None:
    (entry.path / "folder" / "b").unlink()
    assert cache.find("train", KEY).damage == "folder/b is missing"


def test_a_file_too_many_is_a_miss_that_names_it(cache: Cache, entry: Entry) -> None:
    (entry.path / "c").write_bytes(b"")
    assert cache.find("train", KEY).damage == "c does not belong to it"


@given(text=st.one_of(st.just("{}"), st.just("[]"), st.text(max_size=30), st.just('{"parts": 3}')))
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_broken_record_is_a_miss_and_never_an_error(cache: Cache, text: str) -> None:
    entry = stored(cache, {"a": b""})
    (entry.path.parent / "entry.json").write_text(text, encoding="utf-8", errors="replace")
    assert "entry.json can't be read" in cache.find("train", KEY).damage
    assert cache.entries("train") == []


def test_a_record_whose_digest_was_changed_is_a_miss(cache: Cache, entry: Entry) -> None:
    path = entry.path.parent / "entry.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "digest": "0" * 64}))
    assert cache.find("train", KEY).damage == "its digest is another"


def test_a_discarded_entry_is_gone(cache: Cache, entry: Entry) -> None:
    cache.discard("train", KEY)
    assert list((cache.root / "stages" / "train").iterdir()) == []


def test_a_workspace_starts_empty_and_keeps_scratch(cache: Cache) -> None:
    with cache.workspace("train", KEY) as (out, scratch):
        (out / "half").write_text("half")
        (scratch / "checkpoint").write_text("1")
    with cache.workspace("train", KEY) as (out, scratch):
        assert list(out.iterdir()) == []
        assert (scratch / "checkpoint").read_text() == "1"


def test_a_cache_that_is_a_file_is_an_error_of_the_user(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="can't be written"), Cache(tmp_path / "file").in_use():
        pass


@pytest.mark.parametrize(
    ("settings_", "expected"),
    [
        ({"MOBILEKD_CACHE": "/a"}, Path("/a")),
        ({"MOBILEKD_CACHE": "", "XDG_CACHE_HOME": "/b"}, Path("/b/mobilekd")),
        ({"MOBILEKD_CACHE": "", "XDG_CACHE_HOME": "", "HOME": "/c"}, Path("/c/.cache/mobilekd")),
    ],
)
def test_the_default_root_follows_the_settings(
    monkeypatch: pytest.MonkeyPatch, settings_: dict[str, str], expected: Path
) -> None:
    for name, value in settings_.items():
        monkeypatch.setenv(name, value)
    assert Cache.default_root() == expected


def test_prune_keeps_what_was_used(cache: Cache, entry: Entry) -> None:
    assert prune.prune(cache.root, unused_days=1) == 0
    assert cache.find("train", KEY).entry == entry


def test_prune_deletes_what_was_not_used(cache: Cache, entry: Entry) -> None:
    assert prune.prune(cache.root, unused_days=0) > entry.size_bytes
    assert cache.find("train", KEY).entry is None


def test_prune_waits_for_no_build(cache: Cache, entry: Entry) -> None:
    with cache.in_use(), pytest.raises(ConfigError, match="a build is running"):
        prune.prune(cache.root, unused_days=0)
