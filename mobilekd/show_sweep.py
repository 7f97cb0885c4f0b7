"""A sweep on stdout."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mobilekd.console import print_json, print_table
from mobilekd.sweep_report import remarks, table


def show_sweep(document: Mapping[str, Any], out: Path, *, as_json: bool) -> None:
    """Show the ranking, and where its files are."""
    if as_json:
        print_json(document)
        return
    head, *rows = table(document)
    print_table(head, rows)
    for line in remarks(document):
        print(line)
    print(f"\n{out / 'sweep.json'}\n{out / 'sweep.md'}\n{out / 'pareto.svg'}")
