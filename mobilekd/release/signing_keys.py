"""Ed25519 keys in PEM files: made once, never overwritten, never shown."""

import hashlib
import os
import re
import shlex
import stat
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mobilekd.errors import ConfigError, MissingToolError
from mobilekd.release.manifest import MANIFEST, MEASUREMENTS_MANIFEST

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

_MAX_KEY_BYTES = 16 << 10
_ENCRYPTED = re.compile(rb"-----BEGIN ENCRYPTED PRIVATE KEY-----")


@dataclass(frozen=True, slots=True)
class PublicKey:
    """Whose signatures are trusted.

    Attributes:
        path: Where it was read.
        keyid: sha256 of the raw 32 bytes.
    """

    path: Path
    keyid: str
    key: "Ed25519PublicKey"

    def accepts(self, signature: bytes, content: bytes) -> bool:
        """Return whether this key's owner signed the content."""
        from cryptography.exceptions import InvalidSignature

        try:
            self.key.verify(signature, content)
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True, slots=True)
class PrivateKey:
    """What signs. The same content gives the same signature: Ed25519 draws nothing at random."""

    keyid: str
    key: "Ed25519PrivateKey"

    def sign(self, content: bytes) -> bytes:
        """Return the 64 bytes of a signature."""
        return self.key.sign(content)


def public_path(path: Path) -> Path:
    """Return where the public half of a key lies."""
    return path.with_name(f"{path.name}.pub")


def check_place(out: Path, away_from: Sequence[Path]) -> None:
    """Refuse a place that is taken, or from which a private key would be given away.

    Raises:
        ConfigError: Says why.
    """
    where = out.resolve()
    if not out.name:
        raise ConfigError(f"--out {out}: a folder; a file is needed", hint=_KEYGEN)
    for path in (out, public_path(out)):
        if path.is_symlink() or path.exists():
            raise ConfigError(f"{path}: is there already; a key is never overwritten", hint="give another --out")
    if not where.parent.is_dir():
        raise ConfigError(f"--out {out}: no such folder", hint=f"mkdir -p {shlex.quote(str(out.parent))}")
    for folder in where.parents:
        if (folder / MANIFEST).is_file() and (folder / MEASUREMENTS_MANIFEST).is_file():
            raise ConfigError(f"{out}: inside the bundle {folder}, which is given away", hint="give another --out")
        if folder in [one.resolve() for one in away_from]:
            raise ConfigError(f"{out}: inside {folder}, the cache, which is copied about", hint="give another --out")


def write_key_pair(out: Path, passphrase: bytes, *, away_from: Sequence[Path] = ()) -> PublicKey:
    """Write a new key pair: out (PKCS#8 PEM, mode 0600) and out.pub.

    Args:
        out: Where the private key goes; its folder must exist.
        passphrase: Encrypts the private key; empty writes it as it is.
        away_from: Folders that a private key must not lie in, beside every bundle folder.

    Raises:
        ConfigError: A file is there already, or the place is not fit for a private key.
        MissingToolError: cryptography is not installed.
    """
    check_place(out, away_from)
    _cryptography()
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    lock = form.BestAvailableEncryption(passphrase) if passphrase else form.NoEncryption()
    secret = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, lock)
    public = key.public_key().public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo)
    with ExitStack() as undo:
        for path, content, mode in ((out, secret, 0o600), (public_path(out), public, 0o644)):
            _write_new(path, content, mode)
            undo.callback(path.unlink)
        undo.pop_all()
    return PublicKey(public_path(out), keyid_of(key.public_key()), key.public_key())


def read_public_key(path: Path) -> PublicKey:
    """Return a trusted key.

    Raises:
        ConfigError: It is not there, or not the public half of an Ed25519 key.
        MissingToolError: cryptography is not installed.
    """
    content = _read_key_file(path, _TRUSTED)
    _cryptography()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    if b"PRIVATE KEY" in content:
        raise ConfigError(
            f"{path}: a private key; who verifies needs the public half", hint=f"--key {public_path(path)}"
        )
    try:
        key = load_pem_public_key(content)
    except (ValueError, UnsupportedAlgorithm) as cause:
        raise ConfigError(f"{path}: not a public key in PEM form", hint=_TRUSTED) from cause
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigError(f"{path}: a key of type {type(key).__name__}, expected Ed25519", hint=_TRUSTED)
    return PublicKey(path, keyid_of(key), key)


def is_encrypted(path: Path) -> bool:
    """Return whether a passphrase is needed to read a private key.

    Raises:
        ConfigError: It is not there.
    """
    return bool(_ENCRYPTED.search(_read_key_file(path, _KEYGEN)))


def read_private_key(path: Path, passphrase: bytes) -> PrivateKey:
    """Return a key that signs.

    Args:
        path: A PEM file.
        passphrase: Empty for a key that is not encrypted.

    Raises:
        ConfigError: It is not there, not an Ed25519 key, or the passphrase is wrong. The passphrase is never quoted.
        MissingToolError: cryptography is not installed.
    """
    content = _read_key_file(path, _KEYGEN)
    _cryptography()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    encrypted = is_encrypted(path)
    if b"PUBLIC KEY-----" in content:
        private = path.with_suffix("") if path.suffix == ".pub" else "KEY"
        raise ConfigError(f"{path}: a public key; who signs needs the private half", hint=f"--key {private}")
    if b"PRIVATE KEY-----" not in content:
        raise ConfigError(f"{path}: not a private key in PEM form", hint=_KEYGEN)
    try:
        key = load_pem_private_key(content, passphrase if encrypted else None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        # Not `from` the cause: nothing of what a cipher says about a passphrase may reach a log.
        why = "the passphrase does not open it" if encrypted else "not a private key in PEM form"
        raise ConfigError(f"{path}: {why}", hint=_PASSPHRASE if encrypted else _KEYGEN) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(f"{path}: a key of type {type(key).__name__}, expected Ed25519", hint=_KEYGEN)
    return PrivateKey(keyid_of(key.public_key()), key)


def keyid_of(key: "Ed25519PublicKey") -> str:
    """Return the id of a key: sha256 of its raw 32 bytes, as 64 hex digits."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()


def _read_key_file(path: Path, hint: str) -> bytes:
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise ConfigError(f"{path}: not a file", hint=hint)
        with path.open("rb") as stream:
            return stream.read(_MAX_KEY_BYTES)
    except OSError as cause:
        raise ConfigError(f"{path}: {cause.strerror}", hint=hint) from cause


def _write_new(path: Path, content: bytes, mode: int) -> None:
    """Write a file that was not there; what was written of it is taken away again when that fails."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except OSError as cause:
        raise ConfigError(f"{path}: {cause.strerror}", hint="give another --out") from cause
    with ExitStack() as undo:
        undo.callback(path.unlink)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        undo.pop_all()


def _cryptography() -> None:
    try:
        import cryptography  # noqa: F401 - asks whether it is there
    except ImportError as cause:
        raise MissingToolError("cryptography is not installed", hint="pip install 'mobilekd[release]'") from cause


_TRUSTED = "--key KEY.pub, from who signs the bundles"
_KEYGEN = "mobilekd bundle keygen --out release.key"
_PASSPHRASE = "give it with --passphrase-file FILE, in MOBILEKD_KEY_PASSPHRASE, or at the prompt"  # noqa: S105
