"""A store in an S3 bucket, through obstore; the first write of a process proves that the bucket can do it safely."""

import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobilekd.errors import ConfigError
from mobilekd.store.interface import Head, ObjectStore, Stored
from mobilekd.store.probe import check_conditional_writes
from mobilekd.store.s3_errors import told

if TYPE_CHECKING:
    from obstore.store import S3Store as Client

MAX_PUT_BYTES = 5_000_000_000
"""What S3 takes in one request. Uploads in parts can't be create-only everywhere."""

_CHUNK_BYTES = 1 << 20
_SLOWEST_BYTES_PER_S = 1_000_000
_RETRIES = 2


@dataclass(frozen=True, slots=True)
class Place:
    """Where objects lie, and how long an answer may take.

    Attributes:
        prefix: Folder in the bucket, without slashes at its ends; may be empty.
        endpoint: Empty for the cloud's own.
        answer_s: Longest wait for a connection, and for each piece of an answer.
    """

    bucket: str
    prefix: str
    endpoint: str = ""
    region: str = "us-east-1"
    answer_s: float = 10.0

    @property
    def url(self) -> str:
        """Return s3://BUCKET/PREFIX."""
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")


class S3Store(ObjectStore):
    """Objects in a bucket. Create-only by If-None-Match, compare-and-swap by If-Match."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.url = place.url
        self._reader = self._client(read_timeout=_seconds(place.answer_s), timeout="24h")
        self._writer = self._client(timeout=_seconds(place.answer_s))
        self._is_reached = False
        self._is_probed = False

    def put_new(self, name: str, content: bytes | Path) -> bool:
        """Create an object with If-None-Match: *."""
        from obstore.exceptions import AlreadyExistsError

        self._prove_writes()
        try:
            self._put(name, content, "create")
        except AlreadyExistsError:
            return False
        return True

    def get(self, name: str) -> Stored | None:
        """Return an object, with its ETag as its tag."""
        import obstore

        self._reach()
        with self._failures_told(name):
            try:
                found = obstore.get(self._reader, name)
            except FileNotFoundError:
                return None
            return Stored(found.meta["e_tag"] or "", self._chunks(name, found.stream(min_chunk_size=_CHUNK_BYTES)))

    def head(self, name: str) -> Head | None:
        """Return what the bucket knows of an object."""
        import obstore

        self._reach()
        with self._failures_told(name):
            try:
                return _head(obstore.head(self._writer, name))
            except FileNotFoundError:
                return None

    def cas(self, name: str, content: bytes, tag: str) -> bool:
        """Replace an object with If-Match."""
        from obstore.exceptions import PreconditionError

        self._prove_writes()
        try:
            self._put(name, content, {"e_tag": tag})
        except PreconditionError:
            return False
        return True

    def list(self, prefix: str) -> Iterator[Head]:
        """Yield every object below a folder."""
        import obstore

        self._reach()
        with self._failures_told(prefix):
            for some in obstore.list(self._writer, prefix.rstrip("/") or None):
                yield from map(_head, some)

    def renew(self, name: str, content: bytes | Path) -> None:
        """Put an object without a condition."""
        self._prove_writes()
        self._put(name, content, "overwrite")

    def delete(self, name: str) -> None:
        """Delete an object."""
        import obstore

        self._reach()
        with self._failures_told(name):
            try:
                obstore.delete(self._writer, name)
            except FileNotFoundError:
                return

    def _put(self, name: str, content: bytes | Path, mode: Any) -> None:
        import obstore

        size = len(content) if isinstance(content, bytes) else content.stat().st_size
        if size > MAX_PUT_BYTES:
            raise ConfigError(f"{self.url}: {name}: {size} bytes, one request takes {MAX_PUT_BYTES}")
        seconds = self.place.answer_s + size / _SLOWEST_BYTES_PER_S
        client = self._writer if size <= _CHUNK_BYTES else self._client(timeout=_seconds(seconds))
        with self._failures_told(name), _buffer(content) as buffer:
            obstore.put(client, name, buffer, mode=mode, use_multipart=False)

    def _chunks(self, name: str, stream: Any) -> Iterator[bytes]:
        with self._failures_told(name):
            yield from map(bytes, stream)

    def _reach(self) -> None:
        """Tell that the bucket is not there, once; a HEAD can't tell that from an object that is not there."""
        import obstore

        if self._is_reached:
            return
        with self._failures_told("", may_be_denied=True):
            next(iter(obstore.list(self._writer, "channels", chunk_size=1)), None)
        self._is_reached = True

    def _prove_writes(self) -> None:
        if self._is_probed:
            return
        self._reach()
        self._is_probed = True  # the probe itself writes
        is_proved = False
        try:
            check_conditional_writes(self)
            is_proved = True
        finally:
            self._is_probed = is_proved

    @contextmanager
    def _failures_told(self, name: str, *, may_be_denied: bool = False) -> Iterator[None]:
        with told(self.place.url, name, self.place.endpoint, may_be_denied=may_be_denied):
            yield

    def _client(self, **timeouts: str) -> "Client":
        from obstore.store import S3Store as Client

        place, connect = self.place, _seconds(min(5.0, self.place.answer_s))
        is_http = place.endpoint.startswith("http:")
        config = {"region": place.region, **({"endpoint": place.endpoint} if place.endpoint else {})}
        return Client(
            place.bucket,
            prefix=place.prefix or None,
            config=config,
            client_options={
                "allow_http": is_http,
                "connect_timeout": connect,
                **({} if is_http else _trusted()),
                **timeouts,
            },
            retry_config={
                "max_retries": _RETRIES,
                "retry_timeout": timedelta(seconds=place.answer_s),
                "backoff": {
                    "init_backoff": timedelta(milliseconds=100),
                    "max_backoff": timedelta(seconds=1),
                    "base": 2,
                },
            },
        )


def _trusted() -> dict[str, bytes]:
    """Return the certificates of AWS_CA_BUNDLE, for a store behind a certificate authority of its own."""
    bundle = os.environ.get("AWS_CA_BUNDLE", "")
    if not bundle:
        return {}
    try:
        return {"root_certificate": Path(bundle).read_bytes()}
    except OSError as cause:
        raise ConfigError(
            f"AWS_CA_BUNDLE is {bundle!r}: {cause.strerror}", hint="name a PEM file, or unset it"
        ) from cause


@contextmanager
def _buffer(content: bytes | Path) -> Iterator[Any]:
    """Give the content; of a file, mapped."""
    if isinstance(content, bytes) or content.stat().st_size == 0:  # an empty file can't be mapped
        yield content if isinstance(content, bytes) else b""
        return
    with content.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        yield mapped


def _head(meta: Any) -> Head:
    return Head(meta["path"], meta["size"], meta["last_modified"])


def _seconds(seconds: float) -> str:
    return f"{seconds * 1000:.0f}ms"
