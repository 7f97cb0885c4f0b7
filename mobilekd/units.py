"""Numbers as people read them, with their unit; "-" for what is not known."""


def percent(fraction: float | None) -> str:
    """Return a fraction as a percentage.

    Example:
        >>> percent(0.9861)
        '98.61 %'
    """
    return "-" if fraction is None else f"{100 * fraction:.2f} %"


def readable_bytes(count: float | None) -> str:
    """Return a size with a unit of 1000.

    Example:
        >>> readable_bytes(1_540_000)
        '1.54 MB'
    """
    if count is None:
        return "-"
    for unit in ("B", "kB", "MB"):
        if count < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"


def number(value: float | None) -> str:
    """Return a number to three digits."""
    return "-" if value is None else f"{value:.3g}"


def printable(text: str) -> str:
    r"""Return a text from a stranger's file as a terminal may show it: what it would obey is written out.

    Example:
        >>> print(printable("a\x1b[2Jb"))
        a\x1b[2Jb
    """
    return "".join(char if char.isprintable() or char == "\n" else ascii(char)[1:-1] for char in text)
