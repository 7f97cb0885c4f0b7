"""Paths that a user wrote into a file or on the command line."""

from pathlib import Path

from mobilekd.errors import ConfigError, one_line


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
