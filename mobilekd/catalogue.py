"""What `mobilekd explain` knows: the cause of every failure with a code, what to do, and an example."""

import functools
import tomllib
from dataclasses import dataclass
from pathlib import Path

from mobilekd.errors import ConfigError, one_line
from mobilekd.plugins import choices

_FILE = Path(__file__).with_name("catalogue.toml")


@dataclass(frozen=True, slots=True)
class Entry:
    """One failure, or one finding of a training.

    Attributes:
        code: As "MKD-201"; its first digit is the exit code, 8 for a finding of a run that ended well.
        topic: What it is grouped under.
        title: What it is, in some words.
        cause: How it comes about.
        mend: What to do, the likeliest first.
        example: One command, or lines of a file.
        related: Codes that are often the real cause, or are taken for this one.
    """

    code: str
    topic: str
    title: str
    cause: str
    mend: tuple[str, ...]
    example: str
    related: tuple[str, ...]


@functools.cache
def entries() -> dict[str, Entry]:
    """Return all entries by code, in the order of the catalogue."""
    topics = tomllib.loads(_FILE.read_text(encoding="utf-8"))
    return {
        code: Entry(
            code,
            topic,
            told["title"],
            told["cause"],
            tuple(told["mend"]),
            told["example"],
            tuple(told["related"]),
        )
        for topic, group in topics.items()
        for code, told in group.items()
    }


def entry(code: str) -> Entry:
    """Return what is known of a code; "201" and "mkd-201" are taken for "MKD-201".

    Raises:
        ConfigError: There is no such code; the hint has the nearest one.
    """
    wanted = code.strip().upper()
    wanted = wanted if wanted.startswith("MKD-") else f"MKD-{wanted}"
    if wanted not in entries():
        raise ConfigError(
            f"there is no code {one_line(code)!r}",
            hint=f"{choices(one_line(wanted), entries())}; with titles: mobilekd explain",
            code="MKD-206",
        )
    return entries()[wanted]
