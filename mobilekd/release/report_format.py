"""How the report writes numbers and tables."""

from collections.abc import Iterable, Sequence

from mobilekd.release.markup import NOTHING, Html, join, tag

ABSENT = "–"


def percent(fraction: float | None) -> str:
    """Return a fraction in percent, as "98.33 %"."""
    return ABSENT if fraction is None else f"{100 * fraction:.2f} %"


def megabytes(size: int | None) -> str:
    """Return bytes in megabytes of 10^6, as "0.98 MB"."""
    return ABSENT if size is None else f"{size / 1e6:.2f} MB"


def points(difference: float | None) -> str:
    """Return a difference of two fractions in percentage points, with its sign; equal to two decimals is "0.00".

    Example:
        >>> points(-0.0125), points(0.004), points(0.0)
        ('−1.25', '+0.40', '0.00')
    """
    if difference is None:
        return ABSENT
    text = f"{abs(100 * difference):.2f}"
    return text if text == "0.00" else f"{'−' if difference < 0 else '+'}{text}"


def milliseconds(value: float | None) -> str:
    """Return a time with three significant digits, and all digits before the point."""
    if value is None:
        return ABSENT
    return f"{value:.0f}" if value >= 1000 else f"{value:#.3g}"


def number(value: float | None, digits: int = 2) -> str:
    """Return a number with fixed decimals."""
    return ABSENT if value is None else f"{value:.{digits}f}"


def count(value: int | None) -> str:
    """Return an integer with its thousands set apart."""
    return ABSENT if value is None else f"{value:,}"


def table(heads: Sequence[tuple[str, str | Html]], rows: Iterable[Html]) -> Html:
    """Return a table that scrolls sideways on its own; heads are (class, text)."""
    head = tag("tr", {}, *(tag("th", {"class": kind}, text) for kind, text in heads))
    body = tag("table", {}, tag("thead", {}, head), tag("tbody", {}, *rows))
    return tag("div", {"class": "scroll"}, body)


def line(*cells: tuple[str, str | Html], kind: str = "") -> Html:
    """Return one line of a table; cells are (class, content)."""
    return tag("tr", {"class": kind}, *(tag("td", {"class": name}, text) for name, text in cells))


def series(precision: str) -> str:
    """Return the class that colours a precision: int8 is the one that ships, everything else is grey."""
    return "int8" if precision == "int8" else "float"


def stacked(first: str, second: str) -> Html:
    """Return a text with a smaller one below it, or alone when that is empty."""
    return join((first, tag("small", {}, second) if second else NOTHING))
