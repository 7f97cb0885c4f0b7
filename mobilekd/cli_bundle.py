"""Commands of a release engineer: what is in a bundle, and is it whole?"""

from pathlib import Path
from typing import Annotated

import typer

from mobilekd.cli_app import bundle_app_files
from mobilekd.cli_diff import bundle_diff
from mobilekd.cli_sign import keygen, sign
from mobilekd.options import (
    BundleArgument,
    CacheOption,
    DataOption,
    JsonOption,
    NoRunOption,
    RequireOption,
    SignatureOption,
    TrustedOption,
    overrides_of,
)
from mobilekd.workplace import open_workshop, watched

PlaceOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=FILE", help="Where a file of yours lies, as teacher.checkpoint=FILE."),
]
KeepOption = Annotated[Path | None, typer.Option("--keep", metavar="DIR", help="Keep what was built again there.")]
AnywayOption = Annotated[bool, typer.Option("--anyway", help="Go on with other versions than those recorded.")]

bundle_app = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="What is in a bundle, and is it whole?")
bundle_app.command("app")(bundle_app_files)
bundle_app.command("diff")(bundle_diff)
bundle_app.command()(keygen)
bundle_app.command()(sign)


@bundle_app.command("inspect")
def bundle_inspect(*, bundle: BundleArgument, as_json: JsonOption = False) -> None:
    """Show what a bundle says of itself."""
    from mobilekd.release.bundle import inspect
    from mobilekd.show_bundle import show_bundle

    show_bundle(inspect(bundle), as_json=as_json)


@bundle_app.command("verify")
def bundle_verify(
    *,
    bundle: BundleArgument,
    key: TrustedOption = None,
    signature: SignatureOption = None,
    require_signature: RequireOption = False,
    no_run: NoRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Check who signed a bundle and every digest of it, and run each model on its reference input."""
    from mobilekd.release.bundle import verify
    from mobilekd.release.reference import HOST
    from mobilekd.release.reruns import NO_RUNS
    from mobilekd.release.signature import Trust
    from mobilekd.show_bundle import show_verification

    trust = Trust(tuple(key or ()), signature, require_signature)
    with watched():
        report = verify(bundle, NO_RUNS if no_run else HOST, trust)
    show_verification(report, as_json=as_json)


@bundle_app.command("reproduce")
def bundle_reproduce(
    *,
    bundle: BundleArgument,
    data: DataOption = None,
    set_: PlaceOption = None,
    cache: CacheOption = None,
    keep: KeepOption = None,
    anyway: AnywayOption = False,
    as_json: JsonOption = False,
) -> None:
    """Build a bundle again from its provenance, in a new cache, and compare; exit code 7 if it differs."""
    from mobilekd import reproduce
    from mobilekd.paths import check_folder
    from mobilekd.recorded_build import check_versions, read_recorded
    from mobilekd.show_reproduce import show_reproduction

    if keep:
        check_folder("--keep", keep)
    recorded = read_recorded(bundle)
    if not anyway:
        check_versions(recorded)
    places = overrides_of(set_, data, skip_bad_images=False)
    with reproduce.new_cache(cache) as root, open_workshop(root) as workshop:
        found = reproduce.reproduce(recorded, places, workshop, keep=keep)
    show_reproduction(found, as_json=as_json)
    reproduce.check_same(found)
