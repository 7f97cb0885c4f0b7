"""Commands of a release store: publish, fetch, list, point back, prune."""

from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from mobilekd.options import BundleArgument, JsonOption

store_app = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="Releases in a folder or an S3 bucket.")

StoreArgument = Annotated[str, typer.Argument(metavar="STORE", help="/PATH, file:///PATH or s3://BUCKET/PREFIX.")]
ChannelOption = Annotated[str, typer.Option("--channel", metavar="NAME", help="Pointer to a release.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Look, and change nothing.")]

GraceOption = Annotated[
    float,
    typer.Option(
        "--grace-hours", metavar="H", min=0, max=1e6, help="Keep what is newer: somebody may be publishing it."
    ),
]
StageDaysOption = Annotated[
    float | None,
    typer.Option("--stage-days", metavar="D", min=0, max=1e5, help="Take finished stages older than this, too."),
]


def add_store_commands(app: typer.Typer) -> None:
    """Add publish, fetch and the group store."""
    app.command()(publish)
    app.command()(fetch)
    app.add_typer(store_app, name="store")


def publish(
    *,
    bundle: BundleArgument,
    store: StoreArgument,
    channel: ChannelOption = "stable",
    keep: Annotated[int, typer.Option("--keep", metavar="N", min=1, help="Releases the channel remembers.")] = 10,
    signature: Annotated[
        Path | None, typer.Option("--signature", metavar="FILE", help="Signature; BUNDLE.sig.json where there is one.")
    ] = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Put a bundle into a store, and point a channel at it."""
    from mobilekd import publish as releases
    from mobilekd.show_store import show_published
    from mobilekd.store.opening import open_store

    options = releases.PublishOptions(channel=channel, keep=keep, signature=signature, dry_run=dry_run)
    show_published(releases.publish(bundle, open_store(store), options), as_json=as_json)


def fetch(
    *,
    store: StoreArgument,
    channel: ChannelOption = "stable",
    digest: Annotated[str, typer.Option("--digest", metavar="D", help="An older release: its bundle or archive.")] = "",
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where the bundle goes.")] = Path("dist"),
    as_json: JsonOption = False,
) -> None:
    """Get a release from a store, every byte checked."""
    from mobilekd import publish as releases
    from mobilekd.show_store import show_fetched
    from mobilekd.store.opening import open_store

    show_fetched(releases.fetch(open_store(store, to_read=True), channel, digest, out), as_json=as_json)


@store_app.command("list")
def store_list(*, store: StoreArgument, as_json: JsonOption = False) -> None:
    """Show the channels of a store, and the releases that each remembers."""
    from mobilekd.publish import state_of
    from mobilekd.show_store import show_channels
    from mobilekd.store.channel import all_channels
    from mobilekd.store.opening import open_store

    opened = open_store(store, to_read=True)
    found = all_channels(opened)
    states = {one.archive.sha256: state_of(opened, one) for each in found for one in each.releases()}
    show_channels(found, states, as_json=as_json)


@store_app.command("rollback")
def store_rollback(
    *,
    store: StoreArgument,
    digest: Annotated[str, typer.Option("--digest", metavar="D", help="Of the bundle or archive to point at.")],
    channel: ChannelOption = "stable",
    as_json: JsonOption = False,
) -> None:
    """Point a channel back at a release that it remembers."""
    from mobilekd import publish as releases
    from mobilekd.show_store import show_pointer
    from mobilekd.store.opening import open_store

    show_pointer(releases.point_back(open_store(store, to_read=True), channel, digest), as_json=as_json)


@store_app.command("prune")
def store_prune(
    *,
    store: StoreArgument,
    grace_hours: GraceOption = 24.0,
    stage_days: StageDaysOption = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Delete objects that no channel and no finished stage names."""
    from mobilekd import store_upkeep
    from mobilekd.show_store import show_pruned
    from mobilekd.store.opening import open_store

    stages = None if stage_days is None else timedelta(days=stage_days)
    options = store_upkeep.PruneOptions(timedelta(hours=grace_hours), stages, dry_run=dry_run)
    pruned = store_upkeep.prune_store(open_store(store, to_read=True), options)
    show_pruned(pruned, is_done=not dry_run, as_json=as_json)
