"""Values of a bundle as literals of a language; a float32 comes back from its text as the very same float32."""

import re
from collections.abc import Callable, Iterable

import numpy as np


def kotlin(text: str) -> str:
    r"""Return a Kotlin string literal.

    Example:
        >>> print(kotlin('5 $ "é"'))
        "5 \$ \"\u00e9\""
    """
    return _quoted(text, {'"': '\\"', "\\": "\\\\", "$": "\\$"}, _utf16)


def swift(text: str) -> str:
    r"""Return a Swift string literal.

    Example:
        >>> print(swift('a\\(b) é'))
        "a\\(b) \u{e9}"
    """
    return _quoted(text, {'"': '\\"', "\\": "\\\\"}, lambda char: f"\\u{{{ord(char):x}}}")


def cpp(text: str) -> str:
    r"""Return a C++ string literal in UTF-8; octal escapes end after three digits, whatever follows them.

    Example:
        >>> print(cpp('é1 "?'))
        "\303\2511 \"\?"
    """
    octal = {'"': '\\"', "\\": "\\\\", "?": "\\?"}
    return _quoted(text, octal, lambda char: "".join(f"\\{byte:03o}" for byte in char.encode("utf-8", "replace")))


def comment(text: str) -> str:
    r"""Return words for the rest of a comment line, or of a docstring: nothing ends it, nothing continues it.

    Example:
        >>> comment('two\nlines \\ "" */')
        "two lines / '' * /"
    """
    words = "".join(char if char.isprintable() else " " for char in text)
    return " ".join(words.split()).replace("\\", "/").replace('"', "'").replace("*/", "* /")


def number(value: float, suffix: str = "") -> str:
    """Return the shortest decimal of a float32.

    Example:
        >>> number(0.3052, "f"), number(1.0), number(1e-7)
        ('0.3052f', '1.0', '1e-07')
    """
    return f"{np.float32(value)!s}{suffix}"


def numbers(values: Iterable[float], suffix: str = "") -> str:
    """Return float32 values with commas between."""
    return ", ".join(number(value, suffix) for value in values)


def identifier(text: str) -> str:
    """Return a name that every language and Google Play takes: a letter, then letters, digits and underscores.

    Example:
        >>> identifier("tflite-int8"), identifier("é 5")
        ('tflite_int8', 'm_5')
    """
    name = re.sub(r"[^A-Za-z0-9]+", "_", text).strip("_")
    return name if name[:1].isalpha() else f"m_{name}"


def class_name(text: str) -> str:
    """Return the name of a class.

    Example:
        >>> class_name("tflite-int8")
        'TfliteInt8'
    """
    return "".join(part[:1].upper() + part[1:] for part in identifier(text).split("_"))


def _quoted(text: str, special: dict[str, str], escape: Callable[[str], str]) -> str:
    plain = (special.get(char) or (char if " " <= char <= "~" else escape(char)) for char in text)
    return f'"{"".join(plain)}"'


def _utf16(char: str) -> str:
    units = char.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))
