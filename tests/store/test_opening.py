"""What a user may call a store, and how a store that does not do is told."""

import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mobilekd.errors import ConfigError, MissingToolError, StoreError
from mobilekd.store.opening import open_store
from mobilekd.store.s3 import MAX_PUT_BYTES, Place, S3Store
from tests.store.conftest import make_bucket


@pytest.fixture
def silent_endpoint() -> Iterator[str]:
    """A server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize("form", ["{0}/new", "file://{0}/new", "file://localhost{0}/new"])
def test_a_folder_has_three_forms(tmp_path: Path, form: str) -> None:
    open_store(form.format(tmp_path)).put_new("a", b"one")
    assert (tmp_path / "new" / "a").read_bytes() == b"one"


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("", "has no name"),
        ("gs://bucket/prefix", "'gs'"),
        ("http://host/x", "'http'"),
        ("file://host/x", "'host'"),
        ("s3://", "''"),
        ("s3://[bucket", r"'s3://\[bucket'"),
        ("s3://UPPER/x", "'UPPER'"),
        ("s3://bucket/../x", "'../x'"),
        ("s3://bucket/a//b", "'a//b'"),
        ("s3://bucket/a b", "'a b'"),
        ("s3://bucket/x?endpoint=http://evil", "more than a place"),
    ],
)
def test_what_is_no_store_is_named(credentials: None, url: str, named: str) -> None:
    with pytest.raises(ConfigError, match=named.replace("?", r"\?")) as caught:
        open_store(url)
    assert caught.value.hint


def test_a_password_in_a_url_is_refused_and_not_repeated(credentials: None) -> None:
    with pytest.raises(ConfigError) as caught:
        open_store("s3://me:hunter2@bucket/x")
    assert "hunter2" not in caught.value.message + caught.value.hint


def test_a_folder_to_read_from_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such store"):
        open_store(str(tmp_path / "gone"), to_read=True)


def test_missing_credentials_are_told_before_anything_is_asked(
    credentials: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with pytest.raises(ConfigError, match="no credentials") as caught:
        open_store("s3://bucket/x")
    assert "AWS_ACCESS_KEY_ID" in caught.value.hint


@pytest.mark.parametrize(
    "endpoint", ["http://example.com", "http://10.0.0.1:9000", "ftp://127.0.0.1", "127.0.0.1:9000", "https://a:b@host"]
)
def test_an_endpoint_that_is_not_safe_is_refused(
    credentials: None, monkeypatch: pytest.MonkeyPatch, endpoint: str
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    with pytest.raises(ConfigError, match="AWS_ENDPOINT_URL is"):
        open_store("s3://bucket/x")


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:1", "http://[::1]:1", "http://localhost:1", "https://host"])
def test_an_endpoint_on_this_machine_or_by_https_will_do(
    credentials: None, monkeypatch: pytest.MonkeyPatch, endpoint: str
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    assert open_store("s3://bucket/x").url == "s3://bucket/x"


def test_without_obstore_the_extra_is_named(credentials: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(MissingToolError) as caught:
        open_store("s3://bucket/x")
    assert "mobilekd[store]" in caught.value.hint


def test_a_bucket_that_is_not_there_is_named(s3_url: str) -> None:
    with pytest.raises(ConfigError, match=r"no-such-bucket.*there is no such bucket at http"):
        open_store("s3://no-such-bucket/x").get("a")


def test_a_refused_access_is_told(credentials: None, flawed: Callable[[str], str]) -> None:
    store = S3Store(Place("bucket", "x", flawed("denied")))
    with pytest.raises(ConfigError, match=r"refuses the access .403 AccessDenied"):
        store.get("a")


def test_a_full_bucket_is_told(credentials: None, flawed: Callable[[str], str]) -> None:
    store = S3Store(Place("bucket", "x", flawed("full")))
    with pytest.raises(StoreError, match="no space left"):
        store.get("a")


def test_an_endpoint_that_is_down_is_told_at_once(credentials: None) -> None:
    began = time.monotonic()
    with pytest.raises(StoreError, match=r"no connection at http://127\.0\.0\.1:9"):
        S3Store(Place("bucket", "x", "http://127.0.0.1:9")).get("a")
    assert time.monotonic() - began < 60


def test_an_endpoint_that_does_not_answer_is_given_up(credentials: None, silent_endpoint: str) -> None:
    began = time.monotonic()
    with pytest.raises(StoreError, match="no answer in time"):
        S3Store(Place("bucket", "x", silent_endpoint, answer_s=0.5)).get("a")
    assert time.monotonic() - began < 60  # not the three minutes for which its client would try again


def test_an_answer_may_take_ten_seconds() -> None:
    assert Place("bucket", "x").answer_s == 10.0


def test_a_file_above_the_limit_of_one_request_is_named(s3_url: str, tmp_path: Path) -> None:
    with (tmp_path / "huge").open("wb") as stream:
        stream.truncate(MAX_PUT_BYTES + 1)
    with pytest.raises(ConfigError, match=f"a/huge: {MAX_PUT_BYTES + 1} bytes"):
        open_store(s3_url).put_new("a/huge", tmp_path / "huge")


def test_a_store_without_conditional_writes_is_refused_by_what_it_accepted(
    s3_url: str, flawed: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", flawed("no-conditions"))
    make_bucket(flawed("no-conditions"))
    store = open_store(s3_url)
    with pytest.raises(ConfigError) as caught:
        store.put_new("a/b", b"one")
    assert "accepted to create an object that is there (If-None-Match: *)" in caught.value.message
    assert "accepted an update with a stale ETag (If-Match)" in caught.value.message
    assert list(store.list("")) == []


def test_the_probe_leaves_nothing_behind(s3_url: str) -> None:
    store = open_store(s3_url)
    store.put_new("a/b", b"one")
    assert [one.name for one in store.list("")] == ["a/b"]


def test_a_folder_that_can_not_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="a file; a store is a folder"):
        open_store(str(tmp_path / "file")).put_new("a/b", b"one")


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno
    import os

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="a/b: no space left"):
        open_store(str(tmp_path)).put_new("a/b", b"one")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("endpoint", ["https://user:secret@host", "https://:secret@host", "https://user:secret@[host"])
def test_a_password_in_an_endpoint_is_refused_and_never_told(
    credentials: None, monkeypatch: pytest.MonkeyPatch, endpoint: str
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    with pytest.raises(ConfigError, match="AWS_ENDPOINT_URL") as caught:
        open_store("s3://bucket/x")
    assert "secret" not in f"{caught.value} {caught.value.hint} {caught.value.__cause__}"


def test_a_password_in_a_url_that_is_none_is_never_told() -> None:
    with pytest.raises(ConfigError, match="no URL") as caught:
        open_store("s3://user:secret@[bucket/x")
    assert "secret" not in f"{caught.value} {caught.value.__cause__}"


@pytest.mark.parametrize("path", ["~nobody-has-this-name/x", "/a\0b"])
def test_a_folder_that_can_not_be_is_named(path: str) -> None:
    with pytest.raises(ConfigError, match="no file can be looked for at"):
        open_store(path)
