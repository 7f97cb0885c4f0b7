"""channels/NAME.json: which release a channel points at, and those before it. Changed by compare-and-swap only."""

import random
import re
import time
from collections.abc import Callable, Iterator

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mobilekd.artifacts import canonical_json
from mobilekd.errors import ConfigError, StoreError, VerificationError
from mobilekd.store.interface import ObjectStore
from mobilekd.store.objects import read_document

SCHEMA = "mobilekd.channel/1"
CHANNELS = "channels/"

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_TRIES = 60
_LONGEST_WAIT_S = 0.5
_SHA256 = Field(pattern=r"^[0-9a-f]{64}$")


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class File(_Record):
    """One object of a release."""

    sha256: str = _SHA256
    bytes: int = Field(ge=0)


class Release(_Record):
    """What was published once.

    Attributes:
        name: Of the archive, as quickstart-android-arm64.mobilekd.zip.
        bundle: Digest of the bundle: sha256 of its manifest.json.
        signature: None for a bundle without one.
        published: UTC, ISO 8601, to the second.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,199}$")
    bundle: str = _SHA256
    archive: File
    signature: File | None
    published: str = Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00$")

    def files(self) -> tuple[File, ...]:
        """Return every object of the release."""
        return (self.archive, self.signature) if self.signature else (self.archive,)

    def is_same(self, other: "Release") -> bool:
        """Return whether both are the same bytes; the date does not count."""
        return self.files() == other.files() and self.bundle == other.bundle


class Channel(_Record):
    """A pointer.

    Attributes:
        sequence: How often it was moved. It only grows: a reader that has seen a larger one was given an old pointer.
        release: What it points at.
        history: Releases before it, newest first.
    """

    schema_: str = Field(default=SCHEMA, alias="schema", pattern=f"^{re.escape(SCHEMA)}$")
    channel: str
    sequence: int = Field(ge=1)
    release: Release
    history: tuple[Release, ...]

    def releases(self) -> tuple[Release, ...]:
        """Return the release it points at, then those before it."""
        return (self.release, *self.history)

    def to_bytes(self) -> bytes:
        """Return canonical JSON."""
        return canonical_json(self.model_dump(mode="json", by_alias=True)).encode()


def channel_name(name: str) -> str:
    """Return the name of a channel's document.

    Raises:
        ConfigError: A channel may not have this name.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"--channel {name!r} is no name of a channel",
            hint="1 to 64 of a-z, 0-9, '.', '_' and '-', a letter or digit first: stable, beta, app-2.1",
        )
    return f"{CHANNELS}{name}.json"


def read_channel(store: ObjectStore, name: str) -> Channel | None:
    """Return a channel; None where there is none.

    Raises:
        ConfigError: A channel may not have this name.
        VerificationError: Its document can't be read.
    """
    found = _read(store, name)
    return found[0] if found else None


def channels(store: ObjectStore) -> Iterator[str]:
    """Yield the names of all channels, sorted."""
    names = (one.name.removeprefix(CHANNELS) for one in store.list(CHANNELS))
    yield from sorted(name.removesuffix(".json") for name in names if name.endswith(".json"))


def all_channels(store: ObjectStore) -> tuple[Channel, ...]:
    """Return all channels of a store.

    Raises:
        VerificationError: One can't be read.
    """
    found = (read_channel(store, name) for name in channels(store))
    return tuple(one for one in found if one is not None)


def move_channel(store: ObjectStore, name: str, change: Callable[[Channel | None], Channel]) -> tuple[Channel, bool]:
    """Change a channel; return it as it is now, and whether this changed it.

    Args:
        store: Where it is.
        name: Of the channel.
        change: Gives the new pointer from the one that is there, or the same one to leave it. Called again for each
            change that somebody else made meanwhile.

    Raises:
        StoreError: Others changed it again and again.
    """
    for attempt in range(_TRIES):
        found = _read(store, name)
        before, tag = found or (None, "")
        after = change(before)
        if after == before:
            return after, False
        document = after.to_bytes()
        is_done = store.cas(channel_name(name), document, tag) if found else store.put_new(channel_name(name), document)
        if is_done:
            return after, True
        time.sleep(random.uniform(0, min(_LONGEST_WAIT_S, 0.01 * 2**attempt)))
    raise StoreError(f"{store.url}: the channel {name!r} was changed by others {_TRIES} times", hint="try again")


def _read(store: ObjectStore, name: str) -> tuple[Channel, str] | None:
    document = channel_name(name)
    found = read_document(store, document)
    if found is None:
        return None
    content, tag = found
    try:
        channel = Channel.model_validate_json(content)
    except ValidationError as cause:
        first = cause.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise VerificationError(
            f"{store.url}: {document}: {where}: {first['msg']}", hint="no mobilekd of this version wrote it"
        ) from cause
    if channel.channel != name:
        raise VerificationError(f"{store.url}: {document}: is of the channel {channel.channel!r}")
    return channel, tag
