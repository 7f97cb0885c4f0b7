"""The files of a bundle, read the same way from a folder and from an archive."""

import abc
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from mobilekd.artifacts import digest_file
from mobilekd.errors import ConfigError, VerificationError
from mobilekd.release.archive import MAX_FILE_BYTES, MAX_FILES, check_names, entry_chunks, read_archive

_CHUNK_BYTES = 1 << 20
_HINT = "the bundle was changed after it was built: get it again, or build it again"


class BundleFiles(abc.ABC):
    """The files of one bundle, by name; reading one never leaves the bundle."""

    def __init__(self, path: Path, names: frozenset[str]) -> None:
        self.path = path
        self.names = names
        self._digests: dict[str, tuple[int, str]] = {}

    @abc.abstractmethod
    def size(self, name: str) -> int:
        """Return how many bytes a file has."""

    @abc.abstractmethod
    def chunks(self, name: str) -> Iterator[bytes]:
        """Yield the content of a file in pieces."""

    def require(self, name: str) -> None:
        """Refuse a bundle without this file."""
        if name not in self.names:
            raise VerificationError(f"{self.path}: {name}: missing", hint=_HINT, code="MKD-704")

    def read(self, name: str, *, limit_bytes: int) -> bytes:
        """Return a whole file.

        Raises:
            VerificationError: It is missing, or bigger than the limit.
        """
        self.require(name)
        content = bytearray()
        for chunk in self.chunks(name):
            content += chunk
            if len(content) > limit_bytes:
                raise VerificationError(
                    f"{self.path}: {name}: more than {limit_bytes} bytes", hint=_HINT, code="MKD-704"
                )
        return bytes(content)

    def digest(self, name: str) -> tuple[int, str]:
        """Return how many bytes a file has, and their sha256; read once."""
        if name not in self._digests:
            sha, got_bytes = hashlib.sha256(), 0
            for chunk in self.chunks(name):
                sha.update(chunk)
                got_bytes += len(chunk)
            self._digests[name] = got_bytes, sha.hexdigest()
        return self._digests[name]

    def check_size(self, name: str, size: int) -> None:
        """Refuse a file that is missing or has another size than the one that was packed."""
        self.require(name)
        if (got := self.size(name)) != size:
            raise VerificationError(f"{self.path}: {name}: {got} bytes, packed were {size}", hint=_HINT)

    def check(self, name: str, *, size: int, sha256: str) -> None:
        """Refuse a file that is missing or not the one that was packed."""
        self.check_size(name, size)
        self._compare(name, self.digest(name)[1], sha256)

    def copy(self, name: str, target: Path, *, sha256: str) -> None:
        """Copy a file out, and refuse the copy unless it is the one that was packed."""
        self.require(name)
        with target.open("wb") as out:
            for chunk in self.chunks(name):
                out.write(chunk)
        self._compare(name, digest_file(target), sha256)

    def _compare(self, name: str, got: str, packed: str) -> None:
        if got != packed:
            raise VerificationError(
                f"{self.path}: {name}: sha256 is {got}, packed was {packed}", hint=_HINT, code="MKD-704"
            )


class ArchiveFiles(BundleFiles):
    """A bundle in one archive, which is checked to be of the one form when it is opened."""

    def __init__(self, path: Path) -> None:
        self._entries = {entry.name: entry for entry in read_archive(path)}
        super().__init__(path, frozenset(self._entries))

    def size(self, name: str) -> int:
        """Return how many bytes an entry has."""
        return self._entries[name].size

    def chunks(self, name: str) -> Iterator[bytes]:
        """Yield the content of an entry in pieces."""
        return entry_chunks(self.path, self._entries[name])


class FolderFiles(BundleFiles):
    """A bundle in a folder; links and special files are refused when it is opened."""

    def __init__(self, path: Path) -> None:
        names = sorted(_plain_files(path))
        check_names(names, path)
        super().__init__(path, frozenset(names))

    def size(self, name: str) -> int:
        """Return how many bytes a file has."""
        return (self.path / name).stat().st_size

    def chunks(self, name: str) -> Iterator[bytes]:
        """Yield the content of a file in pieces."""
        with (self.path / name).open("rb") as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                yield chunk


def open_bundle(path: Path) -> BundleFiles:
    """Return the files of a bundle: of its archive, or of its folder.

    Raises:
        ConfigError: Nothing is there.
        VerificationError: It is not a bundle, or not one that may be read; names the file.
    """
    require_bundle(path)
    return FolderFiles(path) if path.is_dir() else ArchiveFiles(path)


def require_bundle(path: Path) -> None:
    """Refuse a path at which there is neither a file nor a folder.

    Raises:
        ConfigError: Nothing is there, or the folder that a build makes around its bundle.
        VerificationError: A pipe, a device, a folder without a manifest or the like is there.
    """
    if not path.exists():
        raise ConfigError(
            f"{path}: no such bundle", hint="give the path of a .mobilekd.zip or of a bundle folder", code="MKD-270"
        )
    if not (path.is_dir() or path.is_file()):
        raise VerificationError(f"{path}: neither a file nor a folder", hint=_HINT, code="MKD-705")
    if not (path / "manifest.json").exists() and (path / "bundle" / "manifest.json").is_file():
        raise ConfigError(
            f"{path}: the folder of a build, not a bundle",
            hint=f"give {path / 'bundle'}, or the archive beside it",
            code="MKD-270",
        )
    if path.is_dir() and not any((path / name).exists() for name in ("manifest.json", "measurements")):
        archives = ", ".join(sorted(map(str, path.glob("*.mobilekd.zip")))[:_ARCHIVES_TOLD])
        raise VerificationError(
            f"{path}: a folder without manifest.json, so no bundle",
            hint=f"it has {archives}" if archives else "give the path of a .mobilekd.zip or of a bundle folder",
            code="MKD-705",
        )


def _plain_files(top: Path) -> Iterator[str]:
    """Yield the names of all files below a folder, relative to it; whatever else is there is refused."""
    folders, seen = [""], 0
    while folders:
        below = folders.pop()
        with os.scandir(top / below) as children:
            for child in children:
                name, seen = f"{below}{child.name}", seen + 1
                if seen > MAX_FILES or name.count("/") > _MAX_DEPTH:
                    raise VerificationError(
                        f"{top}: {name}: too many or too deep files for a bundle", hint=_HINT, code="MKD-705"
                    )
                if child.is_dir(follow_symlinks=False):
                    folders.append(f"{name}/")
                elif not child.is_file(follow_symlinks=False):
                    raise VerificationError(
                        f"{top}: {name}: a link or special file; a bundle holds plain files", hint=_HINT, code="MKD-705"
                    )
                elif child.stat(follow_symlinks=False).st_size > MAX_FILE_BYTES:
                    raise VerificationError(
                        f"{top}: {name}: bigger than {MAX_FILE_BYTES} bytes", hint=_HINT, code="MKD-705"
                    )
                else:
                    yield name


_MAX_DEPTH = 8
_ARCHIVES_TOLD = 3
