"""Paths that a user wrote into a file or on the command line, and where things are kept without one."""

import os
import shlex
import shutil
from collections.abc import Iterable
from pathlib import Path

from mobilekd.errors import ConfigError, one_line


def default_cache() -> Path:
    """Return $MOBILEKD_CACHE, else mobilekd below $XDG_CACHE_HOME, else ~/.cache/mobilekd."""
    if ours := os.environ.get("MOBILEKD_CACHE"):
        return Path(ours).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "mobilekd"


def devices_folder() -> Path:
    """Return where runners, runtimes and emulators for devices are kept, whichever cache a build writes to."""
    return default_cache() / "devices"


def path_of(text: str) -> Path:
    """Return a path as it was written, with `~` expanded; there may be nothing yet.

    Example:
        >>> path_of("photos").name
        'photos'

    Raises:
        ConfigError: No file can have that name, nobody has that home, or this user may not look there.
    """
    try:
        path = Path(text).expanduser()
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return path
    except (OSError, ValueError, RuntimeError) as cause:
        reason = cause.strerror if isinstance(cause, OSError) else str(cause)
        raise ConfigError(f"no file can be looked for at {one_line(text)!r}: {reason}", code="MKD-202") from cause
    return path


def check_output(option: str, path: Path, reads: Iterable[Path] = ()) -> None:
    """Refuse a file that can't be written, or that is one of those a command reads; asked before any work.

    Args:
        option: As the user wrote it, such as "--html".
        path: Where the file goes.
        reads: Files and folders that must stay as they are.

    Raises:
        ConfigError: It is a folder, its folder is not there, or it lies at or in what is read.
    """
    if path.is_dir():
        raise ConfigError(f"{option} {path}: a folder; a file is needed", hint=f"{option} FILE")
    if not path.parent.is_dir():
        hint = f"{option} FILE" if path.parent.exists() else f"mkdir -p {shlex.quote(str(path.parent))}"
        raise ConfigError(f"{option} {path}: there is no folder {path.parent}", hint=hint)
    for one in reads:
        if one.resolve() in (path.resolve(), *path.resolve().parents):
            raise ConfigError(f"{option} {path}: would overwrite {one}, which is read", hint=f"another {option} FILE")


def check_folder(option: str, path: Path) -> None:
    """Refuse a folder that can't be made or written to; asked before a long work whose result goes there.

    Raises:
        ConfigError: A file is in the way, or this user may not write there.
    """
    there = next(one for one in (path, *path.absolute().parents) if one.exists())
    if not there.is_dir():
        raise ConfigError(f"{option} {path}: {there} is a file", hint=f"another {option} DIR", code="MKD-262")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ConfigError(f"{option} {path}: {there} can't be written to", hint=f"another {option} DIR", code="MKD-262")


def free_bytes(folder: Path) -> int:
    """Return the free bytes of the disk that a folder is on, or will be."""
    there = folder.absolute()
    return shutil.disk_usage(next(one for one in (there, *there.parents) if one.exists())).free
