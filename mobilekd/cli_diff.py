"""The command that compares two releases."""

from pathlib import Path
from typing import Annotated

import typer

from mobilekd.options import CacheOption, JsonOption

OldArgument = Annotated[Path, typer.Argument(metavar="OLD", help="The bundle of the last release.")]
NewArgument = Annotated[Path, typer.Argument(metavar="NEW", help="The bundle of the next one.")]
HtmlOption = Annotated[
    Path | None, typer.Option("--html", metavar="FILE", help="Write a page with pictures of the images that flipped.")
]
BreakingOption = Annotated[bool, typer.Option("--strict", help="End in 7 when an app has to follow a change.")]


def bundle_diff(
    *,
    old: OldArgument,
    new: NewArgument,
    html: HtmlOption = None,
    strict: BreakingOption = False,
    cache: CacheOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what changed between two releases; exit code 7 when the labels moved, for an app would show wrong names."""
    from mobilekd import diffing
    from mobilekd.cache import Cache
    from mobilekd.paths import check_output
    from mobilekd.release.diff import diff
    from mobilekd.show_diff import show_diff

    if html:
        check_output("--html", html, (old, new))
    found = diff(old, new)
    if html:
        diffing.write_page(found, Cache(cache or Cache.default_root()), html)
    show_diff(found, html, as_json=as_json)
    diffing.check(found, strict=strict)
