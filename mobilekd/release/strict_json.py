"""JSON from strangers: read only when it is small, and only in the one form that mobilekd writes.

A text has to be the canonical JSON of its own value. So duplicate keys, other
spaces, other escapes, not-a-numbers and lone surrogates can't be in one that is
accepted, and two readers can't see two values in it.
"""

import json

from mobilekd.artifacts import canonical_json
from mobilekd.errors import VerificationError

MAX_VALUES = 100_000
"""A list of empty lists takes 30 times its text in memory, so values are counted before any is made."""


def check_shape(content: bytes, where: str) -> None:
    """Refuse JSON with more values than any file of a bundle needs.

    Raises:
        VerificationError: There are too many.
    """
    values = sum(map(content.count, (b"[", b"{", b",")))
    if values > MAX_VALUES:
        raise VerificationError(f"{where}: about {values} JSON values, allowed are {MAX_VALUES}")


def parse_canonical(content: bytes, where: str) -> object:
    """Return the value of a canonical JSON text.

    Raises:
        VerificationError: It is not JSON, too big a tree, or not in the canonical form.
    """
    check_shape(content, where)
    try:
        value: object = json.loads(content.decode("utf-8"))
        is_canonical = canonical_json(value).encode("utf-8") == content
    except RecursionError as cause:
        raise VerificationError(f"{where}: nested too deeply") from cause
    except ValueError as cause:  # not UTF-8, not JSON, not a finite number, too many digits, a lone surrogate
        raise VerificationError(f"{where}: not JSON that mobilekd writes: {_short(cause)}") from cause
    if not is_canonical:
        raise VerificationError(f"{where}: not in the canonical form that mobilekd writes")
    return value


def _short(cause: ValueError) -> str:
    """Return what is wrong; the text of a Unicode error would quote the whole content."""
    return cause.reason if isinstance(cause, UnicodeError) and hasattr(cause, "reason") else str(cause)
