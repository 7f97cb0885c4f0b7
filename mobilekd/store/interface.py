"""The verbs of a store: put_new, get, head, cas, list; and two for its upkeep."""

import abc
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

MAX_DOCUMENT_BYTES = 4 << 20
"""Larger objects have no tag: they are named by their content, so there is nothing to swap."""


@dataclass(frozen=True, slots=True)
class Head:
    """What a store knows of an object: its name, its size, and when it was put there, by the store's clock."""

    name: str
    size_bytes: int
    modified: datetime


@dataclass(frozen=True, slots=True)
class Stored:
    """An object that is being read.

    Attributes:
        tag: Names this version of a document, for `cas`; empty for an object above `MAX_DOCUMENT_BYTES`.
        chunks: The content, in pieces; nobody has checked it.
    """

    tag: str
    chunks: Iterator[bytes]


class ObjectStore(abc.ABC):
    """Objects by name, as "objects/sha256/ab/abcd". Every verb happens as a whole or not at all.

    Every verb raises StoreError where the store can't be reached, and ConfigError where it refuses the access.
    """

    url: str

    @abc.abstractmethod
    def put_new(self, name: str, content: bytes | Path) -> bool:
        """Create an object; return False, and change nothing, where there is one."""

    @abc.abstractmethod
    def get(self, name: str) -> Stored | None:
        """Return an object; None where there is none."""

    @abc.abstractmethod
    def head(self, name: str) -> Head | None:
        """Return what is known of an object; None where there is none."""

    @abc.abstractmethod
    def cas(self, name: str, content: bytes, tag: str) -> bool:
        """Replace the version of a document that a tag names; return False, and change nothing, where it is another."""

    @abc.abstractmethod
    def list(self, prefix: str) -> Iterator[Head]:
        """Yield every object below a folder, as "objects/"; in no promised order."""

    @abc.abstractmethod
    def renew(self, name: str, content: bytes | Path) -> None:
        """Put what the name stands for again, over whatever lies there. For objects that are named by their content."""

    @abc.abstractmethod
    def delete(self, name: str) -> None:
        """Take an object away; nothing happens where there is none."""
