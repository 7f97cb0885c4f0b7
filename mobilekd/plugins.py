"""File name -> class: `backends/tflite.py` is `backend = "tflite"`, its class `Tflite`.

Names are read from the file system, so that listing them imports nothing; a
module is imported when its class is asked for.
"""

import difflib
import importlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mobilekd.errors import ConfigError, one_line

_PACKAGE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Plugins:
    """The plug-ins of one kind; `kind` is the sub-package, as "stages"."""

    kind: str

    @property
    def noun(self) -> str:
        """Return the word for one of them, as "stage"."""
        return self.kind.removesuffix("s")

    def names(self) -> tuple[str, ...]:
        """Return the names, sorted, without importing any."""
        files = (_PACKAGE / self.kind).glob("*.py")
        return tuple(sorted(path.stem for path in files if not path.stem.startswith("_")))

    def check(self, name: str, where: str = "") -> None:
        """Accept a known name; `where` starts the message, as "devices/x.toml: deploy[1].backend".

        Raises:
            ConfigError: There is no such plug-in; the hint lists what there is.
        """
        if name not in self.names():
            start = where or self.noun
            raise ConfigError(
                f"{start} is {one_line(name)!r}; there is no such {self.noun}",
                hint=choices(name, self.names()),
                code="MKD-220",
            )

    def load(self, name: str) -> type[Any]:
        """Import one plug-in and return its class.

        Raises:
            ConfigError: There is no such plug-in.
            TypeError: Its file does not define the class that its name asks for: a bug of the plug-in.
        """
        self.check(name)
        module = importlib.import_module(f"mobilekd.{self.kind}.{name}")
        wanted = name.replace("_", "")
        for value in vars(module).values():
            if isinstance(value, type) and value.__module__ == module.__name__ and value.__name__.lower() == wanted:
                return value
        raise TypeError(f"{module.__file__} defines no class whose name in lower case is {wanted!r}")


def choices(name: str, known: Iterable[str]) -> str:
    """Return a hint for a wrong name: the nearest one, and all there are.

    Example:
        >>> choices("tflit", ["mnn", "tflite"])
        "did you mean 'tflite'? known: mnn, tflite"
    """
    known = tuple(known)
    near = difflib.get_close_matches(one_line(name), known, n=1)  # of a name of a megabyte it takes seconds
    start = f"did you mean {near[0]!r}? " if near else ""
    return f"{start}known: {', '.join(known) or 'none'}"


STAGES = Plugins("stages")
METHODS = Plugins("methods")
BACKENDS = Plugins("backends")
TRANSPORTS = Plugins("transports")
