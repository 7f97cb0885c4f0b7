"""An initramfs in the cpio "newc" format, written without root and the same bytes for the same entries.

Format: https://docs.kernel.org/driver-api/early-userspace/buffer-format.html
"""

import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

_TRAILER = "TRAILER!!!"
_BLOCK_BYTES = 512


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of the archive, owned by root, of time 0.

    Attributes:
        name: Path below the root, without a leading slash.
        mode: Type and permission bits, as os.stat gives them.
        content: Bytes of a file; the target of a symbolic link.
        device: Major and minor number of a device node.
    """

    name: str
    mode: int
    content: bytes = b""
    device: tuple[int, int] = (0, 0)


def directory(name: str, permissions: int = 0o755) -> Entry:
    """Return a folder."""
    return Entry(name, stat.S_IFDIR | permissions)


def file(name: str, content: bytes, permissions: int = 0o644) -> Entry:
    """Return a regular file."""
    return Entry(name, stat.S_IFREG | permissions, content)


def link(name: str, target: str) -> Entry:
    """Return a symbolic link."""
    return Entry(name, stat.S_IFLNK | 0o777, target.encode())


def character_device(name: str, major: int, minor: int, permissions: int = 0o600) -> Entry:
    """Return a character device node."""
    return Entry(name, stat.S_IFCHR | permissions, device=(major, minor))


def archive(entries: Iterable[Entry]) -> bytes:
    """Return the archive: entries sorted by name, with the folders that they need and that were not given.

    The length is a multiple of 512 bytes, so that the kernel also reads an archive appended to another.

    Raises:
        ValueError: Two entries have one name.

    Example:
        >>> archive([file("hello", b"hi")])[:6]
        b'070701'
    """
    given = list(entries)
    by_name = {entry.name: entry for entry in given}
    if len(by_name) != len(given):
        raise ValueError("two entries have one name")
    for entry in given:
        for parent in PurePosixPath(entry.name).parents:
            by_name.setdefault(str(parent), directory(str(parent)))
    by_name.pop(".", None)
    chunks = [_record(number, by_name[name]) for number, name in enumerate(sorted(by_name), start=1)]
    packed = b"".join([*chunks, _record(0, Entry(_TRAILER, 0))])
    return packed + bytes(-len(packed) % _BLOCK_BYTES)


def _record(inode: int, entry: Entry) -> bytes:
    name = entry.name.encode() + b"\0"
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    fields = (inode, entry.mode, 0, 0, links, 0, len(entry.content), 0, 0, *entry.device, len(name), 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + name
    return _padded(head) + _padded(entry.content)


def _padded(chunk: bytes) -> bytes:
    return chunk + bytes(-len(chunk) % 4)
