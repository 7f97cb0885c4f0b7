"""Who signed a bundle, and is what lies here still what they signed? Nothing is parsed before that is known."""

import shlex
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mobilekd.artifacts import digest_file
from mobilekd.errors import ConfigError, VerificationError
from mobilekd.release.dsse import MAX_ENVELOPE_BYTES, Envelope, parse_envelope
from mobilekd.release.files import BundleFiles, open_bundle, require_bundle
from mobilekd.release.signing_keys import PublicKey, read_public_key
from mobilekd.release.statement import Statement, parse_statement

SUFFIX = ".sig.json"
_MAX_NAMED = 5


@dataclass(frozen=True, slots=True)
class Trust:
    """What a verifier demands.

    Attributes:
        keys: Files of public keys; one of them must have signed. Empty: a signature is reported, not checked.
        signature: The signature file; None looks for it beside the bundle.
        required: Refuse to go on without a key.
    """

    keys: tuple[Path, ...] = ()
    signature: Path | None = None
    required: bool = False


@dataclass(frozen=True, slots=True)
class SignatureReport:
    """What is known of the signature.

    Attributes:
        state: "checked", "not checked" (no key was given) or "none" (no file was there).
        file: Where the signature is, or would be.
        keyid: Of the key that signed; only a claim when not checked; empty when there is none.
        key: File of the trusted key that signed; empty when not checked.
    """

    state: Literal["checked", "not checked", "none"]
    file: str
    keyid: str = ""
    key: str = ""

    def to_json(self) -> dict[str, str]:
        """Return plain JSON values."""
        return {"state": self.state, "file": self.file, "keyid": self.keyid, "key": self.key}


@dataclass(frozen=True, slots=True)
class Signed:
    """A report, and what a trusted key signed: sha256 by file name; None when nothing was checked."""

    report: SignatureReport
    files: Mapping[str, str] | None = None


def signature_path(bundle: Path) -> Path:
    """Return where the signature of a bundle lies: beside it.

    Example:
        >>> signature_path(Path("dist/x.mobilekd.zip")).as_posix()
        'dist/x.mobilekd.zip.sig.json'
    """
    here = bundle.resolve() if bundle.name in {"", ".."} else bundle
    return here.with_name(f"{here.name}{SUFFIX}")


def check_signature(bundle: Path, trust: Trust) -> Signed:
    """Check who signed a bundle, then that its archive is the one that was signed; the archive is not parsed for it.

    Raises:
        ConfigError: No key was given and one is needed, or a key can't be read.
        VerificationError: The signature file is damaged, by no trusted key, or of another archive; names the file.
    """
    if trust.required and not trust.keys:
        raise ConfigError(
            "--require-signature needs a key that is trusted", hint="--key KEY.pub, from who signs your bundles"
        )
    require_bundle(bundle)
    keys = tuple(map(read_public_key, trust.keys))
    path = trust.signature or signature_path(bundle)
    if not (path.exists() or path.is_symlink()):
        if keys or trust.signature:
            raise VerificationError(
                f"{bundle}: unsigned: there is no {path}",
                hint="get it from where the bundle was released, or --signature FILE; who releases it makes it with "
                f"mobilekd bundle sign {shlex.quote(str(bundle))} --key KEY",
                code="MKD-709",
            )
        return Signed(SignatureReport("none", str(path)))
    envelope = parse_envelope(read_limited(path, MAX_ENVELOPE_BYTES), str(path))
    if not keys:
        return Signed(SignatureReport("not checked", str(path), envelope.keyid))
    signer = _signer(envelope, keys, path)
    statement = parse_statement(envelope.payload, str(path))
    if not bundle.is_dir():
        _check_archive(bundle, statement)
    return Signed(SignatureReport("checked", str(path), signer.keyid, str(signer.path)), statement.files)


def check_is_for(bundle: Path, archive: str, signature: Path) -> None:
    """Refuse a signature that by its own word is for another archive, as a stale one beside a bundle built again.

    Nothing here says that the word is true: no key is asked.

    Args:
        bundle: Named in the message.
        archive: sha256 of the archive.
        signature: A file.

    Raises:
        VerificationError: It is no signature of a bundle, or for another one; names it.
    """
    envelope = parse_envelope(read_limited(signature, MAX_ENVELOPE_BYTES), str(signature))
    signed = parse_statement(envelope.payload, str(signature)).archive
    if signed != archive:
        raise VerificationError(
            f"{signature}: signs an archive of sha256 {signed}; that of {bundle} is {archive}",
            hint=f"mobilekd bundle sign {shlex.quote(str(bundle))} --key KEY",
            code="MKD-709",
        )


def check_subjects(files: BundleFiles, signed: Mapping[str, str]) -> None:
    """Refuse files that were changed, added or taken away since they were signed.

    Raises:
        VerificationError: Names them.
    """
    faults = [f"{name}: missing, it was signed" for name in sorted(signed.keys() - files.names)]
    faults += [f"{name}: added, nobody signed it" for name in sorted(files.names - signed.keys())]
    common = sorted(files.names & signed.keys())
    faults += [f"{name}: changed since it was signed" for name in common if files.digest(name)[1] != signed[name]]
    if faults:
        more = f"; and {len(faults) - _MAX_NAMED} more" if len(faults) > _MAX_NAMED else ""
        raise VerificationError(f"{files.path}: {'; '.join(faults[:_MAX_NAMED])}{more}", hint=_HINT, code="MKD-704")


def read_limited(path: Path, limit_bytes: int) -> bytes:
    """Return a plain file of at most so many bytes; a pipe or device is not even opened.

    Raises:
        VerificationError: It is something else; names it.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise VerificationError(f"{path}: not a plain file", hint=_HINT)
        with path.open("rb") as stream:
            content = stream.read(limit_bytes + 1)
    except OSError as cause:
        raise VerificationError(f"{path}: {cause.strerror}", hint=_HINT) from cause
    if len(content) > limit_bytes:
        raise VerificationError(f"{path}: more than {limit_bytes} bytes", hint=_HINT)
    return content


def _signer(envelope: Envelope, keys: tuple[PublicKey, ...], path: Path) -> PublicKey:
    for key in keys:
        if key.keyid == envelope.keyid:
            if key.accepts(envelope.signature, envelope.signed):
                return key
            raise VerificationError(
                f"{path}: the signature does not hold: the file was changed", hint=_HINT, code="MKD-709"
            )
    trusted = ", ".join(f"{key.keyid} ({key.path})" for key in keys)
    raise VerificationError(
        f"{path}: signed by keyid {envelope.keyid}, trusted: {trusted}",
        hint="give the signer's --key, if you trust it",
        code="MKD-709",
    )


def _check_archive(bundle: Path, statement: Statement) -> None:
    """Refuse another archive than the signed one; only then look into it, for what was changed."""
    got = digest_file(bundle)
    if got == statement.archive:
        return
    try:
        check_subjects(open_bundle(bundle), statement.files)
    except VerificationError as fault:
        raise VerificationError(
            f"{fault.message} (not the archive that was signed)", hint=_HINT, code="MKD-704"
        ) from fault
    raise VerificationError(f"{bundle}: sha256 is {got}, signed was {statement.archive}", hint=_HINT, code="MKD-704")


_HINT = "get the bundle and its signature again from where they were signed"
