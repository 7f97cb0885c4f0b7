"""What publishing, fetching and upkeep did, on stdout."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from mobilekd.console import print_json, print_table
from mobilekd.units import readable_bytes

if TYPE_CHECKING:
    from mobilekd.publish import Fetched, Published
    from mobilekd.store.channel import Channel, Release
    from mobilekd.store_upkeep import Pruned


def show_published(done: "Published", *, as_json: bool) -> None:
    """Show what was put where, or that nothing had to be."""
    if as_json:
        print_json({**asdict(done), "release": done.release.model_dump(mode="json")})
        return
    would = "would be " if done.dry_run else ""
    for name in done.uploaded:
        print(f"{would}new       {name}")
    for name in done.mended:
        print(f"mended    {name}: it had other bytes")
    if done.moved:
        print(f"{would}moved     {done.channel}, to number {done.sequence}")
    elif not done.uploaded and not done.mended:
        print(f"nothing to do: {done.channel} points at this release already (number {done.sequence})")
    _print_release(done.release)


def show_fetched(done: "Fetched", *, as_json: bool) -> None:
    """Show what was got, and where it lies."""
    signature = str(done.signature) if done.signature else None
    if as_json:
        release = done.release.model_dump(mode="json")
        print_json({"archive": str(done.archive), "signature": signature, "release": release})
        return
    print(f"fetched   {done.archive}")
    if signature:
        print(f"signature {signature} (not checked here)")
    _print_release(done.release)


def show_channels(channels: "Sequence[Channel]", states: Mapping[str, str], *, as_json: bool) -> None:
    """Show the releases of all channels; `states` are by the digest of the archive."""
    if as_json:
        print_json(
            {"channels": [one.model_dump(mode="json", by_alias=True) for one in channels], "states": dict(states)}
        )
        return
    rows = [
        (
            f"{channel.channel} {channel.sequence}" if release is channel.release else "",
            release.bundle[:12],
            release.published,
            readable_bytes(release.archive.bytes),
            "signed" if release.signature else "-",
            states[release.archive.sha256],
            release.name,
        )
        for channel in channels
        for release in channel.releases()
    ]
    print_table(("channel", "bundle", "published", "size", "signature", "state", "name"), rows)


def show_pointer(channel: "Channel", *, as_json: bool) -> None:
    """Show what a channel points at now."""
    if as_json:
        print_json(channel.model_dump(mode="json", by_alias=True))
        return
    print(f"channel   {channel.channel}, number {channel.sequence}")
    _print_release(channel.release)


def show_pruned(pruned: "Pruned", *, is_done: bool, as_json: bool) -> None:
    """Show what was taken away."""
    if as_json:
        print_json(
            {"names": pruned.names, "freed_bytes": pruned.freed_bytes, "kept": pruned.kept, "dry_run": not is_done}
        )
        return
    for name in pruned.names:
        print(name)
    word = "freed" if is_done else "would be freed"
    print(f"{readable_bytes(pruned.freed_bytes)} {word} in {len(pruned.names)} objects; {pruned.kept} objects stay")


def _print_release(release: "Release") -> None:
    print(f"bundle    {release.bundle}")
    print(f"archive   {release.archive.sha256} ({readable_bytes(release.archive.bytes)}), {release.name}")
    print(f"published {release.published}")
