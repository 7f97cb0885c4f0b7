"""Commands of a release engineer: what is in a bundle, and is it whole?"""

import typer

from mobilekd.cli_app import bundle_app_files
from mobilekd.options import BundleArgument, JsonOption
from mobilekd.workplace import watched

bundle_app = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="What is in a bundle, and is it whole?")
bundle_app.command("app")(bundle_app_files)


@bundle_app.command("inspect")
def bundle_inspect(*, bundle: BundleArgument, as_json: JsonOption = False) -> None:
    """Show what a bundle says of itself."""
    from mobilekd.release.bundle import inspect
    from mobilekd.show_bundle import show_bundle

    show_bundle(inspect(bundle), as_json=as_json)


@bundle_app.command("verify")
def bundle_verify(*, bundle: BundleArgument, as_json: JsonOption = False) -> None:
    """Check every digest of a bundle, and run each model on its reference input."""
    from mobilekd.release.bundle import verify
    from mobilekd.show_bundle import show_verification

    with watched():
        report = verify(bundle)
    show_verification(report, as_json=as_json)
