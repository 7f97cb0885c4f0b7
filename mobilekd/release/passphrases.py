"""Where a passphrase comes from: a file, the environment or a prompt; never an argument, which `ps` shows to all."""

import getpass
import os
import sys
from pathlib import Path

from mobilekd.errors import ConfigError
from mobilekd.release.signing_keys import is_encrypted

VARIABLE = "MOBILEKD_KEY_PASSPHRASE"
OPENSSF_VARIABLE = "MOBILEKD_OPENSSF_PASSPHRASE"
_MAX_BYTES = 1000
"""OpenSSL takes up to 1023."""


def new_passphrase(key: Path, file: Path | None, *, is_wanted: bool = True) -> bytes:
    """Return a passphrase for a new key, empty where none is wanted; who types it types it twice.

    Args:
        key: Where the key will lie; named at the prompt.
        file: Its first line is the passphrase; None takes $MOBILEKD_KEY_PASSPHRASE, else asks.
        is_wanted: False with --no-passphrase.

    Raises:
        ConfigError: None is given and nobody can be asked, or the two differ, or it is empty; a file for none wanted.
    """
    if not is_wanted:
        if file is not None:
            raise ConfigError("--passphrase-file and --no-passphrase exclude each other", hint="give one of them")
        return b""
    if given := _given(file, VARIABLE):
        return given
    first = _ask(f"New passphrase of {key}: ")
    if first != _ask("The same again: "):
        raise ConfigError("the two passphrases differ", hint="start again")
    if not first:
        raise ConfigError("the passphrase is empty", hint="--no-passphrase writes a key without one")
    return first


def passphrase_of(key: Path, file: Path | None, variable: str = VARIABLE) -> bytes:
    """Return the passphrase of a private key; empty for a key that has none.

    Args:
        key: A PEM file.
        file: Its first line is the passphrase; None takes the environment variable, else asks.
        variable: The environment variable.

    Raises:
        ConfigError: The key is not there, or no passphrase is given and nobody can be asked.
    """
    if not is_encrypted(key):
        return b""
    return _given(file, variable) or _ask(f"Passphrase of {key}: ")


def _given(file: Path | None, variable: str) -> bytes:
    """Return the passphrase of a file's first line, else of the environment; empty when neither is given."""
    if file is None:
        return _bounded(os.environ.get(variable, "").encode("utf-8", "surrogateescape"))
    try:
        with file.open("rb") as stream:
            first = stream.read(_MAX_BYTES + 2).split(b"\n", 1)[0].removesuffix(b"\r")
    except OSError as cause:
        raise ConfigError(f"{file}: {cause.strerror}", hint="--passphrase-file FILE") from cause
    if not first:
        raise ConfigError(f"{file}: its first line is empty", hint="write the passphrase into it, or --no-passphrase")
    return _bounded(first)


def _ask(prompt: str) -> bytes:
    if not sys.stdin.isatty():
        raise ConfigError(
            f"{prompt.strip(' :')}: none was given, and there is no terminal to ask at",
            hint=f"--passphrase-file FILE, or set {VARIABLE}; keygen also takes --no-passphrase",
        )
    return _bounded(getpass.getpass(prompt).encode("utf-8", "surrogateescape"))


def _bounded(passphrase: bytes) -> bytes:
    if len(passphrase) > _MAX_BYTES:
        raise ConfigError(f"the passphrase has more than {_MAX_BYTES} bytes", hint="take a shorter one")
    return passphrase
