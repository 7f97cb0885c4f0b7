"""What runs here: versions of distributions, and a digest of mobilekd's own code."""

import functools
import hashlib
import importlib.metadata
import platform
import sys
from pathlib import Path

from mobilekd.artifacts import digest_file, files_below

ABSENT = "absent"

_CODE = {".py", ".css", ".txt"}
_NOT_CODE = {"__pycache__", "shipped"}


@functools.cache
def tool_version(distribution: str) -> str:
    """Return the installed version of a distribution, or "absent"."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ABSENT


@functools.cache
def code_digest() -> str:
    """Return one sha256 over mobilekd's code, the same in a checkout, a changed checkout of equal files, and a wheel.

    A commit would name more than the code, and nothing at all in a wheel.
    """
    return digest_code(Path(__file__).parent)


def digest_code(package: Path) -> str:
    """Return one sha256 over the names and contents of the code files of a package."""
    files = (path for path in files_below(package) if path.suffix in _CODE and not _NOT_CODE & set(path.parts))
    lines = (f"{digest_file(package / path)}  {path.as_posix()}\n" for path in files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def python_version() -> str:
    """Return the version of this Python that decides what packages do, as "3.12"."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def machine() -> str:
    """Return the architecture of this host, as "x86_64"."""
    return platform.machine()
