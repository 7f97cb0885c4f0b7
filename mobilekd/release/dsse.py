"""The signature file: a DSSE envelope with one signature (https://github.com/secure-systems-lab/dsse).

What is signed is not the JSON but the "pre-authentication encoding" of payload
type and payload, so nothing has to be parsed before the signature was checked.
"""

import base64
import binascii
import re
from dataclasses import dataclass

from mobilekd.artifacts import canonical_json
from mobilekd.errors import VerificationError
from mobilekd.release.strict_json import parse_canonical

PAYLOAD_TYPE = "application/vnd.in-toto+json"
MAX_ENVELOPE_BYTES = 4 << 20
_SIGNATURE_BYTES = 64
_KEYID = re.compile(r"[0-9a-f]{64}", re.ASCII)
_HINT = "get the signature file again from where the bundle was signed"


@dataclass(frozen=True, slots=True)
class Envelope:
    """A payload of type `PAYLOAD_TYPE`, the id of a key, and that key's Ed25519 signature over `signed`.

    The key's id is a claim until the signature was checked.
    """

    payload: bytes
    keyid: str
    signature: bytes

    @property
    def signed(self) -> bytes:
        """Return the bytes that the signature covers."""
        return pae(PAYLOAD_TYPE, self.payload)


def pae(payload_type: str, payload: bytes) -> bytes:
    """Return the pre-authentication encoding of a payload.

    Example:
        >>> pae("http://example.com/HelloWorld", b"hello world")
        b'DSSEv1 29 http://example.com/HelloWorld 11 hello world'
    """
    kind = payload_type.encode("utf-8")
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def envelope_text(envelope: Envelope) -> str:
    """Return the text of a signature file; equal envelopes give equal texts."""
    signature = {"keyid": envelope.keyid, "sig": _base64(envelope.signature)}
    return canonical_json(
        {"payload": _base64(envelope.payload), "payloadType": PAYLOAD_TYPE, "signatures": [signature]}
    )


def parse_envelope(content: bytes, where: str) -> Envelope:
    """Return an envelope, its signature not checked and its payload not parsed.

    Raises:
        VerificationError: It is not byte for byte what `envelope_text` writes.
    """
    match parse_canonical(content, where):
        case {"payload": str(payload), "payloadType": str(kind), "signatures": [*signatures], **extra} if not extra:
            if kind != PAYLOAD_TYPE:
                raise VerificationError(f"{where}: payloadType is {kind[:80]!r}, expected {PAYLOAD_TYPE!r}")
            return _one_signature(_bytes_of(payload, where, "payload"), signatures, where)
    raise VerificationError(
        f"{where}: not a DSSE envelope: expected the keys payload, payloadType and signatures", hint=_HINT
    )


def _one_signature(payload: bytes, signatures: list[object], where: str) -> Envelope:
    match signatures:
        case [{"keyid": str(keyid), "sig": str(sig), **extra}] if not extra:
            if not _KEYID.fullmatch(keyid):
                raise VerificationError(f"{where}: keyid is {keyid[:80]!r}, expected 64 hex digits", hint=_HINT)
            signature = _bytes_of(sig, where, "sig")
            if len(signature) != _SIGNATURE_BYTES:
                raise VerificationError(f"{where}: sig has {len(signature)} bytes, an Ed25519 signature has 64")
            return Envelope(payload, keyid, signature)
        case [_]:
            raise VerificationError(f"{where}: the signature is not made of keyid and sig", hint=_HINT)
    raise VerificationError(f"{where}: holds {len(signatures)} signatures, expected 1", hint=_HINT)


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


def _bytes_of(text: str, where: str, key: str) -> bytes:
    """Return what a base64 text stands for; refuse the other texts that stand for the same."""
    try:
        content = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as cause:
        raise VerificationError(f"{where}: {key} is not base64", hint=_HINT) from cause
    if _base64(content) != text:
        raise VerificationError(f"{where}: {key} is not in the canonical form of base64", hint=_HINT)
    return content
