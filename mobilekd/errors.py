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
"""

from typing import ClassVar

EXIT_OK = 0
EXIT_BUG = 70
EXIT_INTERRUPTED = 130


class MobilekdError(Exception):
    """A failure with a message for the user, and a hint: the next thing to do.

    The message says what failed and where, and quotes the user's value; the
    hint lists the choices or gives one command.
    """

    exit_code: ClassVar[int] = EXIT_BUG

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class ConfigError(MobilekdError):
    """A file, key, option or data set that the user can mend."""

    exit_code = 2


class MissingToolError(MobilekdError):
    """A program, package or interpreter is not installed."""

    exit_code = 3


class StageError(MobilekdError):
    """A stage could not do its work."""

    exit_code = 4


class DeviceError(MobilekdError):
    """A device is not reachable, went away, or gave no measurement."""

    exit_code = 5


class StoreError(DeviceError):
    """A store of releases or of stages is not reachable, gave no answer, or has no space left."""


class OverBudgetError(MobilekdError):
    """Everything was built, but a budget of the profile does not hold."""

    exit_code = 6


class VerificationError(MobilekdError):
    """Parity, a digest or a reference pair does not hold."""

    exit_code = 7
