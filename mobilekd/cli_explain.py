"""`mobilekd explain`: what a code such as MKD-201 means, and what to do."""

from typing import Annotated

import typer

from mobilekd.options import JsonOption


def explain(
    *,
    code: Annotated[str, typer.Argument(metavar="[CODE]", help="As MKD-201, from an error line. All without it.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Say what an error's code means: its cause, what to do, an example."""
    from mobilekd import catalogue, show_explain

    if code:
        show_explain.show_entry(catalogue.entry(code), as_json=as_json)
    else:
        show_explain.show_all(tuple(catalogue.entries().values()), as_json=as_json)
