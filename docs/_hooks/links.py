"""Links that leave docs/ (to code, to profiles) are names on the site, which has no code beside it."""

import posixpath
import re
from typing import Any

_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(((?:\.\./)+[^)\s#]+)(#[^)\s]*)?\)")


def on_page_markdown(markdown: str, *, page: Any, **_: object) -> str:
    """Return the page with `[text](../file)` as "text (`file`)" where the file lies outside of docs/."""
    folder = posixpath.dirname(page.file.src_uri)

    def named(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(folder, link[2]))
        if not target.startswith("../"):
            return link[0]
        name = target.removeprefix("../")
        return f"`{name}`" if link[1].rstrip("/") == name else f"{link[1]} (`{name}`)"

    return _LINK.sub(named, markdown)
