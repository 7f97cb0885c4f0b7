"""A sweep on stdout."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mobilekd.console import print_json, print_table
from mobilekd.sweep_report import cells, heads


def show_sweep(document: Mapping[str, Any], out: Path, *, as_json: bool) -> None:
    """Show the ranking, and where its files are."""
    if as_json:
        print_json(document)
        return
    keys = list(document["axes"])
    print_table(heads(keys), [cells(row, keys) for row in document["rows"]])
    for one in document["failed"]:
        print(f"failed: {one['values']}: {one['error']}")
    print(f"\n{out / 'sweep.json'}\n{out / 'sweep.md'}\n{out / 'pareto.svg'}")
