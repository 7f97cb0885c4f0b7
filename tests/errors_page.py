"""The part of docs/errors.md that is made from the catalogue: `python -m tests.errors_page` writes it again."""

import sys
from pathlib import Path

from mobilekd.catalogue import Entry, entries

PAGE = Path(__file__).parent.parent / "docs" / "errors.md"
MARK = "<!-- What follows is written by `python -m tests.errors_page`. -->\n"


def written(page: str) -> str:
    """Return the page with its part from the catalogue as it should be."""
    topics = dict.fromkeys(one.topic for one in entries().values())
    parts = [f"## {topic.capitalize()}\n\n{_of_topic(topic)}" for topic in topics]
    return page.partition(MARK)[0] + MARK + "\n" + "\n".join(parts)


def _of_topic(topic: str) -> str:
    return "\n".join(_told(one) for one in entries().values() if one.topic == topic)


def _told(entry: Entry) -> str:
    example = "\n".join(f"    {line}" for line in entry.example.splitlines())
    return f"**{entry.code}: {entry.title}.** {entry.cause} *To do:* {' '.join(entry.mend)}\n\n{example}\n"


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    sys.exit(0)
