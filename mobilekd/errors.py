"""Every failure we expect, with the exit code that a script can rely on.

MobilekdError                        exit
├── ConfigError           2   a file, key, option or data set that the user can mend
├── MissingToolError      3   a program, package or interpreter is not installed
├── StageError            4   a stage could not do its work (a converter refused, training diverged)
├── DeviceError           5   a device is not reachable or went away
│   └── StoreError        5   a store of releases or of stages is not reachable, or has no space left
├── OverBudgetError       6   everything was built, but a budget does not hold
└── VerificationError     7   parity, a digest or a reference pair does not hold

0 is success, 130 is Ctrl-C, 70 is a bug of ours.

Each carries a code such as MKD-201, whose first digit is the exit code; `mobilekd explain MKD-201` says more of it,
from catalogue.toml. A class has a general code; where a failure is raised, `code=` gives a closer one.
"""

from collections.abc import Iterable
from typing import ClassVar

EXIT_OK = 0
EXIT_BUG = 70
EXIT_INTERRUPTED = 130

CODE_BUG = "MKD-070"
CODE_INTERRUPTED = "MKD-130"
CODE_USAGE = "MKD-204"
"""Words of the command line that typer refuses; its exit code is 2."""

_QUOTED_CHARACTERS = 80


class MobilekdError(Exception):
    """A failure with a message for the user, and a hint: the next thing to do.

    The message says what failed and where, and quotes the user's value; the
    hint lists the choices or gives one command. The code is that of
    catalogue.toml, where more is said; without one it is the general code.
    """

    exit_code: ClassVar[int] = EXIT_BUG
    general_code: ClassVar[str] = CODE_BUG

    def __init__(self, message: str, *, hint: str = "", code: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = code or self.general_code


class ConfigError(MobilekdError):
    """A file, key, option or data set that the user can mend."""

    exit_code = 2
    general_code = "MKD-200"


class MissingToolError(MobilekdError):
    """A program, package or interpreter is not installed."""

    exit_code = 3
    general_code = "MKD-300"


class StageError(MobilekdError):
    """A stage could not do its work."""

    exit_code = 4
    general_code = "MKD-400"


class DeviceError(MobilekdError):
    """A device is not reachable, went away, or gave no measurement."""

    exit_code = 5
    general_code = "MKD-500"


class StoreError(DeviceError):
    """A store of releases or of stages is not reachable, gave no answer, or has no space left."""

    general_code = "MKD-520"


class OverBudgetError(MobilekdError):
    """Everything was built, but a budget of the profile does not hold."""

    exit_code = 6
    general_code = "MKD-600"


class VerificationError(MobilekdError):
    """Parity, a digest or a reference pair does not hold."""

    exit_code = 7
    general_code = "MKD-700"


def first_code(failures: Iterable[MobilekdError], exit_code: int) -> str:
    """Return the code of the first failure with this exit code, for the error that joins them; empty for none.

    Example:
        >>> first_code([MissingToolError("no adb", code="MKD-301"), StageError("too big")], StageError.exit_code)
        'MKD-400'
    """
    return next((one.code for one in failures if one.exit_code == exit_code), "")


def one_line(text: str, limit: int = _QUOTED_CHARACTERS) -> str:
    r"""Return what a user wrote as a message may show it: control characters escaped, at most `limit` of it.

    Example:
        >>> one_line("a\nb"), one_line("x" * 9, limit=4)
        ('a\\nb', 'xxxx…')
    """
    start = text[: limit + 1]
    shown = "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in start)
    return shown if len(start) <= limit and len(shown) <= limit else f"{shown[:limit]}…"
