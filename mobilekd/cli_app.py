"""The command of an app developer: what an app needs of a bundle."""

from pathlib import Path
from typing import Annotated

import typer

from mobilekd.options import BundleArgument, JsonOption

AppOutOption = Annotated[Path, typer.Option("--out", metavar="DIR", help="Where it goes; must not be there yet.")]
PackNameOption = Annotated[str, typer.Option("--pack-name", metavar="NAME", help="Of the AI pack, a Gradle module.")]
PackBackendOption = Annotated[str, typer.Option("--backend", metavar="NAME", help="Whose model the AI pack holds.")]


def bundle_app_files(
    *,
    bundle: BundleArgument,
    out: AppOutOption,
    pack_name: PackNameOption = "",
    backend: PackBackendOption = "",
    as_json: JsonOption = False,
) -> None:
    """Write what an app needs: an AI pack, code with the bundle's numbers, golden pairs."""
    from mobilekd.release.app.writing import write_app
    from mobilekd.show_app import show_app

    show_app(write_app(bundle, out, pack_name=pack_name, backend=backend), as_json=as_json)
