"""Signing a bundle: only one that is whole, and always with the same bytes."""

import os
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mobilekd.artifacts import digest_file
from mobilekd.errors import ConfigError, VerificationError
from mobilekd.release.archive import write_archive
from mobilekd.release.bundle import checked_manifest
from mobilekd.release.dsse import MAX_ENVELOPE_BYTES, PAYLOAD_TYPE, Envelope, envelope_text, pae, parse_envelope
from mobilekd.release.files import BundleFiles, open_bundle
from mobilekd.release.manifest import MAX_MANIFEST_BYTES
from mobilekd.release.openssf import Openssf, sign_openssf
from mobilekd.release.signature import read_limited, signature_path
from mobilekd.release.signing_keys import PrivateKey
from mobilekd.release.statement import PROVENANCE, minimal_predicate, statement_of, statement_text
from mobilekd.release.strict_json import parse_canonical


@dataclass(frozen=True, slots=True)
class SignReport:
    """What was signed, by whom, and where the signature is.

    Attributes:
        digest: The digest of the bundle: sha256 of manifest.json.
        archive: sha256 of the archive.
        files: How many files of the bundle.
        openssf: Where the second signature is; empty when none was asked for.
    """

    file: str
    keyid: str
    digest: str
    archive: str
    files: int
    openssf: str = ""

    def to_json(self) -> dict[str, object]:
        """Return plain JSON values."""
        return asdict(self)


def sign_bundle(bundle: Path, key: PrivateKey, out: Path | None = None, openssf: Openssf | None = None) -> SignReport:
    """Write the signature of a bundle; its folder and its archive have the same one.

    Args:
        bundle: A bundle.zip or a bundle folder, whose every digest must hold.
        key: Who signs.
        out: Where the signature goes; None is beside the bundle.
        openssf: A second signature for other tools.

    Raises:
        ConfigError: Nothing is there, or the signature would overwrite something else.
        VerificationError: The bundle is not what was packed.
    """
    target = out or signature_path(bundle)
    _check_target(target, bundle)
    files = open_bundle(bundle)
    manifest, digest = checked_manifest(files)
    archive = _archive_digest(files)
    digests = {name: files.digest(name)[1] for name in files.names}
    statement = statement_of(archive, digests, _provenance(files) or minimal_predicate(manifest))
    payload = statement_text(statement).encode("utf-8")
    envelope = Envelope(payload, key.keyid, key.sign(pae(PAYLOAD_TYPE, payload)))
    if openssf:
        sign_openssf(files, openssf)
    _write_whole(target, envelope_text(envelope))
    second = str(openssf.out) if openssf else ""
    return SignReport(str(target), key.keyid, digest, archive, len(digests), second)


def _provenance(files: BundleFiles) -> dict[str, Any] | None:
    """Return the predicate that the build wrote into the bundle."""
    if PROVENANCE not in files.names:
        return None
    where = f"{files.path}: {PROVENANCE}"
    predicate = parse_canonical(files.read(PROVENANCE, limit_bytes=MAX_MANIFEST_BYTES), where)
    if not isinstance(predicate, dict):
        raise VerificationError(f"{where}: not a JSON object")
    return predicate


def _archive_digest(files: BundleFiles) -> str:
    """Return the sha256 of the archive, which for a folder is made to be digested."""
    if files.path.is_file():
        return digest_file(files.path)
    with tempfile.TemporaryDirectory(prefix="mobilekd-sign-") as scratch:
        write_archive(files.path, Path(scratch) / "bundle.zip")
        return digest_file(Path(scratch) / "bundle.zip")


def _check_target(target: Path, bundle: Path) -> None:
    """Refuse to write into the bundle, or over anything but an older signature."""
    if bundle.resolve() in target.resolve().parents:
        raise ConfigError(f"--out {target}: inside the bundle, which must not change", hint="leave --out away")
    if not target.parent.is_dir():
        raise ConfigError(f"--out {target}: no such folder", hint=f"mkdir -p {target.parent}")
    if target.is_symlink() or target.exists():
        try:
            parse_envelope(read_limited(target, MAX_ENVELOPE_BYTES), str(target))
        except VerificationError as cause:
            raise ConfigError(
                f"--out {target}: is there, and is no signature: {cause.message}", hint="choose another --out FILE"
            ) from cause


def _write_whole(target: Path, text: str) -> None:
    """Write a file beside its place, then rename it."""
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    except OSError as cause:
        raise ConfigError(f"{target} can't be written: {cause.strerror}", hint="choose another --out FILE") from cause
    beside = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
        beside.chmod(0o644)
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)
