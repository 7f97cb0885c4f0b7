"""The catalogue of errors on stdout."""

import itertools
import textwrap
from collections.abc import Sequence
from dataclasses import asdict

from mobilekd.catalogue import Entry
from mobilekd.console import print_json

_WIDTH = 100


def show_entry(entry: Entry, *, as_json: bool) -> None:
    """Show one code: cause, what to do, an example, and codes that are near."""
    if as_json:
        print_json(asdict(entry))
        return
    print(f"{entry.code}: {entry.title}\n")
    print(textwrap.fill(entry.cause, _WIDTH))
    print("\nwhat to do")
    for step in entry.mend:
        print(textwrap.fill(step, _WIDTH, initial_indent="  - ", subsequent_indent="    "))
    print("\nexample")
    print(textwrap.indent(entry.example, "  "))
    if entry.related:
        print(f"\nrelated: {', '.join(entry.related)}")


def show_all(entries: Sequence[Entry], *, as_json: bool) -> None:
    """Show every code with its title, by topic."""
    if as_json:
        print_json({"codes": [asdict(one) for one in entries]})
        return
    for number, (topic, group) in enumerate(itertools.groupby(entries, key=lambda one: one.topic)):
        print(f"{chr(10) if number else ''}{topic}")
        for one in group:
            print(f"  {one.code}  {one.title}")
