"""Read a TOML file that a person wrote."""

import re
import tomllib
from pathlib import Path
from typing import Any

from mobilekd.errors import ConfigError

MOST_LEVELS = 32
"""Of tables and arrays inside each other; the deepest option has four."""


def read_toml(path: Path) -> dict[str, Any]:
    """Return the content of a TOML file.

    Raises:
        ConfigError: It can't be read, or is not TOML; the message names the line.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as cause:
        raise ConfigError(f"{path} can't be read: {cause.strerror}", code="MKD-202") from cause
    except (ValueError, RecursionError) as cause:
        at = re.search(r"at line (\d+)", str(cause))
        line = at[1] if at else "end"
        raise ConfigError(
            f"{path}:{line}: {cause}", hint="the format is TOML: https://toml.io", code="MKD-203"
        ) from cause
    if not is_flat(document):
        raise ConfigError(f"{path}: more than {MOST_LEVELS} tables or arrays lie inside each other", code="MKD-203")
    return document


def is_flat(document: Any) -> bool:
    """Return whether tables and arrays lie inside each other no deeper than can be meant."""
    level = [document]
    for _ in range(MOST_LEVELS):
        containers = [one.values() if isinstance(one, dict) else one for one in level if isinstance(one, dict | list)]
        level = [inner for one in containers for inner in one]
        if not level:
            return True
    return False
