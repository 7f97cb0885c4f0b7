"""HTML by construction: what is not `Html` is escaped, so a class named "<script>" stays a name."""

import html
from collections.abc import Iterable, Mapping


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


NOTHING = Html("")
_VOID = frozenset({"circle", "line", "path", "rect", "meta", "br"})


def tag(name: str, attributes: Mapping[str, str | float], *children: str) -> Html:
    """Return one element; children that are not `Html` are escaped.

    Example:
        >>> tag("td", {"class": "number"}, "a < b")
        '<td class="number">a &lt; b</td>'
    """
    written = "".join(f' {key}="{html.escape(_plain(value))}"' for key, value in attributes.items())
    if name in _VOID and not children:
        return Html(f"<{name}{written}/>")
    return Html(f"<{name}{written}>{join(children)}</{name}>")


def join(parts: Iterable[str]) -> Html:
    """Return parts one after another, escaped where they are not `Html`."""
    return Html("".join(part if isinstance(part, Html) else html.escape(part) for part in parts))


def _plain(value: str | float) -> str:
    """Return an attribute's text; numbers with two decimals at most, which is below a hundredth of a pixel."""
    return value if isinstance(value, str) else f"{value:.2f}".rstrip("0").rstrip(".")
