"""Releases in a store: put a bundle there and point a channel at it; get one back; point back at an older one."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from mobilekd.artifacts import digest_file
from mobilekd.cache import full_disk_is_told
from mobilekd.errors import ConfigError, VerificationError
from mobilekd.release.archive import name_fault, write_archive
from mobilekd.release.bundle import open_checked
from mobilekd.release.signature import check_is_for, signature_path
from mobilekd.store.channel import Channel, File, Release, channel_name, channels, move_channel, read_channel
from mobilekd.store.interface import ObjectStore
from mobilekd.store.objects import MISSING, check_object, fetch_object, object_name, put_object

_SHORTEST_PREFIX = 8


@dataclass(frozen=True, slots=True)
class PublishOptions:
    """How a bundle is published.

    Attributes:
        keep: Releases that the channel remembers, the new one among them.
        signature: Its file; None takes BUNDLE.sig.json where there is one.
        dry_run: Look, and write nothing.
    """

    channel: str = "stable"
    keep: int = 10
    signature: Path | None = None
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class Published:
    """What publishing did, or would do.

    Attributes:
        moved: Whether the pointer was changed.
        uploaded: Objects that were not there.
        mended: Objects that were there with other bytes, and are right now.
    """

    store: str
    channel: str
    sequence: int
    release: Release
    moved: bool
    uploaded: tuple[str, ...]
    mended: tuple[str, ...]
    dry_run: bool


@dataclass(frozen=True, slots=True)
class Fetched:
    """A release that was got back: its files here, and what it is."""

    archive: Path
    signature: Path | None
    release: Release


def publish(bundle: Path, store: ObjectStore, options: PublishOptions) -> Published:
    """Put a bundle into a store, and point a channel at it.

    The digests of the bundle are checked first, and the objects are read back
    before the pointer moves: it always names a whole release.

    Raises:
        ConfigError: There is no bundle or signature, or the channel may not have this name.
        VerificationError: The bundle is not what was packed, its signature is of another, or the store does not give
            back what was put.
    """
    channel_name(options.channel)
    with _sources(bundle, options) as (release, sources):
        if options.dry_run:
            now = read_channel(store, options.channel)
            after = _pointed(now, release, options)
            new = tuple(name for file in release.files() if store.head(name := object_name(file.sha256)) is None)
            return _published(store, after, moved=after != now, uploaded=new, dry_run=True)
        put = [_put(store, path, sha256) for path, sha256 in sources]
        after, moved = move_channel(store, options.channel, lambda before: _pointed(before, release, options))
        for path, sha256 in sources:  # `store prune` may have come between; the pointer keeps it away from now on
            put_object(store, path, sha256)
    uploaded = tuple(name for name, what in put if what == "new")
    mended = tuple(name for name, what in put if what == "mended")
    return _published(store, after, moved=moved, uploaded=uploaded, mended=mended)


def fetch(store: ObjectStore, channel: str, digest: str, out: Path) -> Fetched:
    """Get a release: re-hashed, read as strictly as any bundle, and renamed into its place.

    Args:
        store: Where it was published.
        channel: Which one.
        digest: Of a bundle or archive that the channel remembers, or its start; empty for what it points at.
        out: Folder for the files; made where there is none.

    Raises:
        ConfigError: There is no such channel or release, or the folder can't be written.
        VerificationError: What the store gives is not what was published; nothing of it is left.
        StageError: The disk is full.
    """
    release = find_release(_channel(store, channel), digest)
    archive = out / _safe_name(store, channel, release)
    try:
        with full_disk_is_told(out):
            out.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".mobilekd-fetch-", dir=out) as beside:
                fresh = [Path(beside) / archive.name, Path(beside) / signature_path(archive).name]
                fresh = fresh[: len(release.files())]
                for path, file in zip(fresh, release.files(), strict=True):
                    fetch_object(store, file.sha256, path, file.bytes)
                *_, bundle = open_checked(fresh[0])
                if bundle != release.bundle:
                    raise VerificationError(f"{store.url}: {channel}: holds the bundle {bundle}, not {release.bundle}")
                signature = signature_path(archive) if release.signature else None
                _place(fresh, archive, signature)
    except (PermissionError, NotADirectoryError, FileExistsError) as cause:
        raise ConfigError(f"{cause.filename} can't be written: {cause.strerror}", hint="choose --out DIR") from cause
    return Fetched(archive, signature, release)


def point_back(store: ObjectStore, channel: str, digest: str) -> Channel:
    """Point a channel at a release that it remembers; those that were newer stay in its history.

    Raises:
        ConfigError: There is no such channel or release.
        VerificationError: The release is no longer whole.
    """
    release = find_release(_channel(store, channel), digest)
    _check_whole(store, release)

    def change(before: Channel | None) -> Channel:
        if before is None:
            raise ConfigError(f"{store.url}: the channel {channel!r} went away")
        return _moved(before, release, keep=len(before.releases()), channel=channel)

    return move_channel(store, channel, change)[0]


def find_release(channel: Channel, digest: str) -> Release:
    """Return the release of a channel whose bundle or archive has this digest; its newest for an empty one.

    Raises:
        ConfigError: There is none, or more than one archive.
    """
    if not digest:
        return channel.release
    wanted = digest.removeprefix("sha256:").lower()
    known = ", ".join(dict.fromkeys(one.bundle[:12] for one in channel.releases()))
    if len(wanted) < _SHORTEST_PREFIX:
        raise ConfigError(f"--digest {digest!r}: {_SHORTEST_PREFIX} digits at least", hint=f"known: {known}")
    found = [
        one for one in channel.releases() if wanted in {one.bundle[: len(wanted)], one.archive.sha256[: len(wanted)]}
    ]
    archives = {one.archive.sha256[:12] for one in found}
    if not found:
        raise ConfigError(f"the channel {channel.channel!r} has no release {digest!r}", hint=f"known: {known}")
    if len(archives) > 1:
        raise ConfigError(
            f"--digest {digest!r}: {len(archives)} releases of {channel.channel!r}",
            hint=f"--digest of the archive: {', '.join(sorted(archives))}",
        )
    return found[0]  # of one archive that was published with two signatures, the newest


def state_of(store: ObjectStore, release: Release) -> str:
    """Return "whole", or which object of a release is missing or has another size; nothing is read."""
    for file in release.files():
        head = store.head(name := object_name(file.sha256))
        if head is None:
            return f"{name} is missing"
        if head.size_bytes != file.bytes:
            return f"{name} has {head.size_bytes} bytes, not {file.bytes}"
    return "whole"


@contextmanager
def _sources(bundle: Path, options: PublishOptions) -> Iterator[tuple[Release, list[tuple[Path, str]]]]:
    """Give the release that a bundle is, and the files of its objects; a folder is packed first."""
    _, manifest, _, digest = open_checked(bundle)
    name = f"{manifest.pipeline}-{manifest.profile.name}.mobilekd.zip"
    if fault := name_fault(name):
        raise ConfigError(
            f"{bundle}: a release can't be named {name!r}: {fault}", hint="rename the pipeline or profile"
        )
    with _archive(bundle, name) as archive:
        signature = _signature(bundle, options)
        files = [File(sha256=digest_file(path), bytes=path.stat().st_size) for path in (archive, signature) if path]
        if signature:
            check_is_for(bundle, files[0].sha256, signature)
        release = Release(
            name=name,
            bundle=digest,
            archive=files[0],
            signature=files[1] if signature else None,
            published=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        yield release, [(path, file.sha256) for path, file in zip((archive, signature), files, strict=False) if path]


@contextmanager
def _archive(bundle: Path, name: str) -> Iterator[Path]:
    """Give a bundle as an archive: itself, or a folder's packed for as long."""
    if not bundle.is_dir():
        yield bundle
        return
    with tempfile.TemporaryDirectory(prefix="mobilekd-publish-") as scratch:
        packed = Path(scratch) / name
        write_archive(bundle, packed)
        yield packed


def _signature(bundle: Path, options: PublishOptions) -> Path | None:
    if options.signature is None:
        beside = signature_path(bundle)
        return beside if beside.is_file() else None
    if not options.signature.is_file():
        raise ConfigError(f"--signature {options.signature}: there is no such file", hint="mobilekd bundle sign --help")
    return options.signature


def _put(store: ObjectStore, path: Path, sha256: str) -> tuple[str, str]:
    """Put one object and read it back; return its name, and "new", "there" or "mended"."""
    name = object_name(sha256)
    before = check_object(store, sha256)
    if before in {"", MISSING}:
        put_object(store, path, sha256)
    else:
        store.renew(name, path)
    what = {"": "there", MISSING: "new"}.get(before, "mended")
    if before and (fault := check_object(store, sha256)):
        store.delete(name)
        raise VerificationError(
            f"{store.url}: {name}: {fault}, right after it was put", hint=f"is {path} being written? then publish again"
        )
    return name, what


def _pointed(before: Channel | None, release: Release, options: PublishOptions) -> Channel:
    """Return the pointer after a release; the same one where it points there, and remembers no more than it may."""
    if before is None:
        return Channel(channel=options.channel, sequence=1, release=release, history=())
    return _moved(before, release, keep=options.keep, channel=options.channel)


def _moved(before: Channel, release: Release, *, keep: int, channel: str) -> Channel:
    if before.release.is_same(release):
        release = before.release  # with the date of the first time
    older = tuple(one for one in before.releases() if not one.is_same(release))[: keep - 1]
    if (release, *older) == before.releases():
        return before
    return Channel(channel=channel, sequence=before.sequence + 1, release=release, history=older)


def _published(
    store: ObjectStore,
    after: Channel,
    *,
    moved: bool,
    uploaded: tuple[str, ...],
    mended: tuple[str, ...] = (),
    dry_run: bool = False,
) -> Published:
    return Published(store.url, after.channel, after.sequence, after.release, moved, uploaded, mended, dry_run)


def _channel(store: ObjectStore, name: str) -> Channel:
    channel = read_channel(store, name)
    if channel is None:
        known = ", ".join(channels(store))
        hint = f"--channel NAME; there are: {known}" if known else "mobilekd publish BUNDLE STORE makes the first one"
        raise ConfigError(f"{store.url}: there is no channel {name!r}", hint=hint)
    return channel


def _safe_name(store: ObjectStore, channel: str, release: Release) -> str:
    if fault := name_fault(release.name):
        raise VerificationError(f"{store.url}: {channel_name(channel)}: unsafe name {release.name!r}: {fault}")
    return release.name


def _check_whole(store: ObjectStore, release: Release) -> None:
    for file in release.files():
        if fault := check_object(store, file.sha256):
            raise VerificationError(
                f"{store.url}: {object_name(file.sha256)}: {fault}", hint="publish that bundle again: it is put anew"
            )


def _place(fresh: list[Path], archive: Path, signature: Path | None) -> None:
    """Rename what was got into its place, the signature first; one of an older archive does not stay."""
    if signature is None:
        signature_path(archive).unlink(missing_ok=True)
    else:
        fresh[1].replace(signature)
    fresh[0].replace(archive)
