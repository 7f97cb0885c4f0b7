"""Objects that are named by the sha256 of their content. What is read is hashed before it is handed on."""

import hashlib
import os
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

from mobilekd.errors import VerificationError
from mobilekd.store.interface import MAX_DOCUMENT_BYTES, ObjectStore

OBJECTS = "objects/"
MISSING = "missing"

_OLD = timedelta(minutes=10)
_DIGEST = re.compile(r"[0-9a-f]{64}")
_HINT = "publish it again: a damaged object is replaced"


def is_digest(text: str) -> bool:
    """Return whether this is a sha256, as 64 lower-case hex digits."""
    return _DIGEST.fullmatch(text) is not None


def object_name(sha256: str) -> str:
    """Return the name of the object with this content.

    Example:
        >>> object_name("ab" * 32)[:26]
        'objects/sha256/ab/abababab'
    """
    return f"{OBJECTS}sha256/{sha256[:2]}/{sha256}"


def put_object(store: ObjectStore, path: Path, sha256: str) -> bool:
    """Put a file under its digest; return False where it was there already.

    One that was there and is not new is put again, so that `mobilekd store prune` sees that somebody wants it.
    """
    name = object_name(sha256)
    there = store.head(name)  # first: a store takes the whole file before it refuses it
    if there is None and store.put_new(name, path):
        return True
    there = there or store.head(name)
    if there is None or datetime.now(UTC) - there.modified > _OLD or there.size_bytes != path.stat().st_size:
        store.renew(name, path)
    return False


def check_object(store: ObjectStore, sha256: str) -> str:
    """Return what is wrong with a stored object after reading all of it; empty when nothing is."""
    stored = store.get(object_name(sha256))
    if stored is None:
        return MISSING
    sha = hashlib.sha256()
    for chunk in stored.chunks:
        sha.update(chunk)
    return "" if sha.hexdigest() == sha256 else f"its sha256 is {sha.hexdigest()}"


def fetch_object(store: ObjectStore, sha256: str, target: Path, size_bytes: int) -> None:
    """Write an object to a file, which appears when its hash is right and never otherwise.

    Raises:
        VerificationError: The object is missing, or is not what its name says; names it.
    """
    name = object_name(sha256)
    stored = store.get(name)
    if stored is None:
        raise VerificationError(f"{store.url}: {name}: {MISSING}", hint=_HINT, code="MKD-711")
    sha, got_bytes = hashlib.sha256(), 0
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as out:
            for chunk in stored.chunks:
                got_bytes += len(chunk)
                if got_bytes > size_bytes:
                    break
                sha.update(chunk)
                out.write(chunk)
            out.flush()
            os.fsync(out.fileno())
        if got_bytes != size_bytes:
            raise VerificationError(
                f"{store.url}: {name}: not {size_bytes} bytes, as recorded", hint=_HINT, code="MKD-711"
            )
        if sha.hexdigest() != sha256:
            raise VerificationError(f"{store.url}: {name}: its sha256 is {sha.hexdigest()}", hint=_HINT, code="MKD-711")
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def read_document(store: ObjectStore, name: str) -> tuple[bytes, str] | None:
    """Return a small document and its tag; None where there is none.

    Raises:
        VerificationError: It is too big for a document.
    """
    stored = store.get(name)
    if stored is None:
        return None
    content = bytearray()
    for chunk in stored.chunks:
        content += chunk
        if len(content) > MAX_DOCUMENT_BYTES:
            raise VerificationError(f"{store.url}: {name}: more than {MAX_DOCUMENT_BYTES} bytes")
    return bytes(content), stored.tag
