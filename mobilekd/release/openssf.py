"""A second signature in OpenSSF's form, for tools that read no other; ours stays the one that `verify` checks.

model-signing signs the folder, with ECDSA keys only, so its bytes differ every
time. By itself it leaves .git* files out of what it signs; here it does not.
"""

import contextlib
import io
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from mobilekd.errors import ConfigError, MissingToolError, VerificationError
from mobilekd.release.files import BundleFiles, FolderFiles
from mobilekd.release.passphrases import OPENSSF_VARIABLE, passphrase_of

if TYPE_CHECKING:
    from model_signing import hashing


@dataclass(frozen=True, slots=True)
class Openssf:
    """A second signature: PEM file of an EC key on P-256, P-384 or P-521, and where the signature goes."""

    key: Path
    out: Path


def openssf_of(out: Path | None, key: Path | None) -> Openssf | None:
    """Return what --openssf and --openssf-key ask for; None when neither is given.

    Raises:
        ConfigError: Only one is given.
    """
    if out is None and key is None:
        return None
    if out is None or key is None:
        raise ConfigError("--openssf and --openssf-key go together", hint="--openssf OUT.sig --openssf-key EC_PEM")
    return Openssf(key, out)


def sign_openssf(files: BundleFiles, wanted: Openssf) -> None:
    """Write model-signing's signature over the files of a bundle.

    Args:
        files: A bundle whose digests hold; of an archive, a copy is unpacked to be signed.
        wanted: With which key, and where to.

    Raises:
        ConfigError: The key can't be used, or the signature would lie in the bundle, or over a file.
        MissingToolError: model-signing is not installed.
    """
    key, out = wanted.key, wanted.out
    passphrase = passphrase_of(key, None, OPENSSF_VARIABLE)
    signing = _model_signing().signing
    if files.path.resolve() in out.resolve().parents:
        raise ConfigError(f"--openssf {out}: inside the bundle, which must not change", hint="write it beside")
    if out.is_symlink() or out.exists() or not out.parent.is_dir():
        raise ConfigError(f"--openssf {out}: is there already, or its folder is not", hint="give another name")
    with _folder_of(files) as folder, tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as scratch:
        beside = Path(scratch) / "signature"
        try:
            config = signing.Config().use_elliptic_key_signer(private_key=key, password=passphrase or None)
            config.set_hashing_config(_all_files()).sign(folder, beside)
        except _faults():
            # Not `from` the cause: nothing of what a cipher says about a passphrase may reach a log.
            raise ConfigError(
                f"{key}: model-signing can't sign with it: no EC key, or another passphrase", hint=_EC
            ) from None
        beside.replace(out)


def verify_openssf(folder: Path, key: Path, signature: Path) -> None:
    """Check model-signing's signature of a bundle folder.

    Args:
        folder: The bundle folder.
        key: PEM file of the public EC key.
        signature: The file that `sign_openssf` wrote.

    Raises:
        ConfigError: The folder or the key is not there.
        MissingToolError: model-signing is not installed.
        VerificationError: The signature does not hold for this folder and key.
    """
    verifying = _model_signing().verifying
    for path in (folder, key):
        if not path.exists():
            raise ConfigError(f"{path}: no such file", hint="give the bundle folder and the signer's public EC key")
    FolderFiles(folder)
    warnings = io.StringIO()
    try:
        with contextlib.redirect_stdout(warnings):
            config = verifying.Config().use_elliptic_key_verifier(public_key=key)
            config.set_hashing_config(_all_files()).verify(folder, signature)
    except _faults() as cause:
        raise VerificationError(f"{signature}: does not hold for {folder}: {cause or type(cause).__name__}") from cause
    if told := warnings.getvalue().strip():  # the signature names no key, which its writer does
        raise VerificationError(f"{signature}: does not hold for {folder}: {told}")


def _model_signing() -> ModuleType:
    try:
        import model_signing
    except ImportError as cause:  # of itself, or of pyOpenSSL, which it needs and does not ask for
        raise MissingToolError(f"model-signing: {cause}", hint="pip install 'mobilekd[openssf]'") from cause
    module: ModuleType = model_signing
    return module


def _faults() -> tuple[type[Exception], ...]:
    """Return what model-signing raises for a key or signature that it can't use: it has no type of its own."""
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from google.protobuf.json_format import ParseError

    named = (ValueError, TypeError, LookupError, AttributeError, OSError, RecursionError)
    return (*named, InvalidSignature, UnsupportedAlgorithm, ParseError)


def _all_files() -> "hashing.Config":
    return _model_signing().hashing.Config().set_ignored_paths(paths=[], ignore_git_paths=False)


@contextlib.contextmanager
def _folder_of(files: BundleFiles) -> Iterator[Path]:
    if files.path.is_dir():
        yield files.path
        return
    with tempfile.TemporaryDirectory(prefix="mobilekd-openssf-") as scratch:
        folder = Path(scratch) / "bundle"
        for name in sorted(files.names):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            files.copy(name, folder / name, sha256=files.digest(name)[1])
        yield folder


_EC = "an EC key on P-256: openssl ecparam -name prime256v1 -genkey -noout -out ec.pem"
