"""The laws of a store, of a folder and of a bucket alike."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mobilekd.errors import VerificationError
from mobilekd.store.interface import MAX_DOCUMENT_BYTES, ObjectStore
from mobilekd.store.objects import check_object, fetch_object, object_name, put_object, read_document
from tests.store.processes import start_counter

CONTENT = b"content" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(CONTENT)
    return path


def test_what_was_put_is_got(store: ObjectStore) -> None:
    assert store.put_new("a/b", b"one")
    assert read_document(store, "a/b") is not None
    assert read_document(store, "a/b")[0] == b"one"


def test_nothing_is_got_where_nothing_was_put(store: ObjectStore) -> None:
    assert store.get("a/b") is None
    assert store.head("a/b") is None
    assert list(store.list("a/")) == []


def test_an_object_is_created_once(store: ObjectStore) -> None:
    store.put_new("a/b", b"one")
    assert not store.put_new("a/b", b"two")
    assert read_document(store, "a/b")[0] == b"one"


def test_of_many_that_create_one_object_one_wins_and_its_content_stays(store: ObjectStore) -> None:
    contents = [f"{number}".encode() * 100_000 for number in range(8)]
    with ThreadPoolExecutor(len(contents)) as writers:
        is_mine = list(writers.map(lambda content: store.put_new("a/b", content), contents))
    assert is_mine.count(True) == 1
    assert read_document(store, "a/b")[0] == contents[is_mine.index(True)]


def test_an_empty_file_is_an_object(store: ObjectStore, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert store.put_new("a/b", tmp_path / "empty")
    assert store.head("a/b").size_bytes == 0


def test_a_swap_needs_the_version_that_is_there(store: ObjectStore) -> None:
    store.put_new("a/b", b"one")
    stale = read_document(store, "a/b")[1]
    assert store.cas("a/b", b"two", stale)
    assert not store.cas("a/b", b"three", stale)
    assert read_document(store, "a/b")[0] == b"two"


def test_what_is_not_there_is_not_swapped(store: ObjectStore) -> None:
    assert not store.cas("a/b", b"one", "tag")
    assert store.get("a/b") is None


def test_a_list_has_what_is_below_its_folder(store: ObjectStore) -> None:
    store.put_new("a/b", b"one")
    store.put_new("a/c/d", b"three")
    store.put_new("b/a", b"two")
    assert {one.name: one.size_bytes for one in store.list("a/")} == {"a/b": 3, "a/c/d": 5}


def test_a_list_of_all_has_no_file_of_the_store_itself(store: ObjectStore) -> None:
    store.put_new("a/b", b"one")
    store.cas("a/b", b"two", read_document(store, "a/b")[1])
    assert [one.name for one in store.list("")] == ["a/b"]


def test_an_object_was_put_now(store: ObjectStore) -> None:
    store.put_new("a/b", b"one")
    assert abs(store.head("a/b").modified - datetime.now(UTC)) < timedelta(seconds=5)


def test_what_was_deleted_is_gone_and_may_be_deleted_again(store: ObjectStore) -> None:
    store.put_new("a/b", b"one")
    store.delete("a/b")
    store.delete("a/b")
    assert store.get("a/b") is None


def test_a_fetched_object_is_the_file_that_was_put(store: ObjectStore, source: Path, tmp_path: Path) -> None:
    assert put_object(store, source, SHA256)
    assert not put_object(store, source, SHA256)
    fetch_object(store, SHA256, tmp_path / "target", len(CONTENT))
    assert (tmp_path / "target").read_bytes() == CONTENT


@pytest.mark.parametrize("wrong", [CONTENT[:-1] + b"!", CONTENT[:-1], CONTENT + b"!", b""])
def test_an_object_with_other_bytes_is_refused_by_name_and_leaves_nothing(
    store: ObjectStore, source: Path, tmp_path: Path, wrong: bytes
) -> None:
    store.put_new(object_name(SHA256), wrong)
    with pytest.raises(VerificationError, match=object_name(SHA256)):
        fetch_object(store, SHA256, tmp_path / "target", len(CONTENT))
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["source"]


def test_a_missing_object_is_refused_by_name(store: ObjectStore, tmp_path: Path) -> None:
    with pytest.raises(VerificationError, match=rf"{object_name(SHA256)}: missing"):
        fetch_object(store, SHA256, tmp_path / "target", 1)


def test_an_object_is_checked_by_all_its_bytes(store: ObjectStore, source: Path) -> None:
    put_object(store, source, SHA256)
    assert check_object(store, SHA256) == ""
    store.renew(object_name(SHA256), CONTENT[:-1] + b"!")
    assert check_object(store, SHA256).startswith("its sha256 is")


def test_a_large_object_is_streamed_as_it_was_put(store: ObjectStore, tmp_path: Path) -> None:
    content = bytes(range(256)) * (MAX_DOCUMENT_BYTES // 256 + 1)
    (tmp_path / "large").write_bytes(content)
    sha256 = hashlib.sha256(content).hexdigest()
    put_object(store, tmp_path / "large", sha256)
    fetch_object(store, sha256, tmp_path / "target", len(content))
    assert (tmp_path / "target").read_bytes() == content


def test_a_document_has_a_limit(store: ObjectStore) -> None:
    store.put_new("a/b", bytes(MAX_DOCUMENT_BYTES + 1))
    with pytest.raises(VerificationError, match="a/b: more than"):
        read_document(store, "a/b")


def test_two_processes_that_count_with_swaps_lose_nothing(store: ObjectStore, url: str) -> None:
    store.put_new("a/count", b"0")
    writers = [start_counter(url, "a/count", times=25) for _ in range(2)]
    [writer.join(timeout=300) for writer in writers]
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert read_document(store, "a/count")[0] == b"50"
