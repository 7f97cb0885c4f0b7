"""Licence expressions of SPDX: is a licence among those that are allowed?"""

import re
from collections.abc import Iterable

_TOKEN = re.compile(r"\s*(\(|\)|[A-Za-z0-9.+:-]+)")
_WORDS = ("and", "or", "with")
_MAX_DEPTH = 50


def is_allowed(expression: str, allowed: Iterable[str]) -> bool:
    """Return whether a licence expression can be met by allowed licences alone; letters' case does not count.

    OR takes one side that is allowed, AND needs both. WITH only adds permissions, so an allowed licence is allowed with
    any exception. "X-or-later" and "X+" may be taken as X. A text that is no expression is allowed by that very text.

    Example:
        >>> is_allowed("GPL-2.0-only OR MIT", ["MIT"]), is_allowed("GPL-2.0-only AND MIT", ["MIT"])
        (True, False)
    """
    known = frozenset(" ".join(one.split()).lower() for one in allowed)
    text = " ".join(expression.split()).lower()
    if text in known:
        return True
    tokens = _tokens(text)
    if not tokens:
        return False
    try:
        parser = _Parser(tokens, known)
        holds = parser.either(0)
    except (IndexError, _NotAnExpressionError):
        return False
    return holds and parser.is_done


class _NotAnExpressionError(Exception):
    """The text is no SPDX expression."""


class _Parser:
    """Reads tokens from the left; each method takes what it reads and returns whether it is allowed."""

    def __init__(self, tokens: list[str], known: frozenset[str]) -> None:
        self._tokens, self._known, self._at = tokens, known, 0

    @property
    def is_done(self) -> bool:
        """Return whether every token was read."""
        return self._at == len(self._tokens)

    def either(self, depth: int) -> bool:
        """Read A OR B OR ..."""
        holds = self._both(depth)
        while self._take("or"):
            holds = self._both(depth) or holds
        return holds

    def _both(self, depth: int) -> bool:
        holds = self._one(depth)
        while self._take("and"):
            holds = self._one(depth) and holds
        return holds

    def _one(self, depth: int) -> bool:
        if self._take("("):
            if depth == _MAX_DEPTH:
                raise _NotAnExpressionError
            holds = self.either(depth + 1)
            if not self._take(")"):
                raise _NotAnExpressionError
            return holds
        licence = self._name()
        exception = self._name() if self._take("with") else ""
        return f"{licence} with {exception}" in self._known or any(one in self._known for one in _taken_as(licence))

    def _take(self, word: str) -> bool:
        is_next = not self.is_done and self._tokens[self._at] == word
        self._at += is_next
        return is_next

    def _name(self) -> str:
        name = self._tokens[self._at]
        if name in {*_WORDS, "(", ")"}:
            raise _NotAnExpressionError
        self._at += 1
        return name


def _tokens(text: str) -> list[str]:
    """Return the words and brackets of a text; none when something else stands in it."""
    found, at = [], 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            return []
        found.append(match[1])
        at = match.end()
    return found


def _taken_as(licence: str) -> tuple[str, ...]:
    if licence.endswith("-or-later"):
        base = licence.removesuffix("-or-later")
        return licence, base, f"{base}-only", f"{base}+"
    if licence.endswith("+"):
        base = licence.removesuffix("+")
        return licence, base, f"{base}-only", f"{base}-or-later"
    return (licence,)
