"""OpenSSF's form of a signature, by the real model-signing."""

import base64
import json
import shutil
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization as form
from cryptography.hazmat.primitives.asymmetric import ec

from mobilekd.artifacts import digest_file, files_below
from mobilekd.errors import ConfigError, MissingToolError, VerificationError
from mobilekd.release.files import open_bundle
from mobilekd.release.openssf import Openssf, openssf_of, sign_openssf, verify_openssf
from mobilekd.release.signing_keys import write_key_pair

SECRET = "hunter2"


@pytest.fixture
def desk(built: Path, tmp_path: Path) -> Path:
    """A bundle, an EC key pair ec.pem and ec.pub, and other.pub."""
    shutil.copytree(built / "bundle", tmp_path / "bundle")
    for name in ("ec", "other"):
        key = ec.generate_private_key(ec.SECP256R1())
        lock = form.NoEncryption()
        (tmp_path / f"{name}.pem").write_bytes(key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, lock))
        public = key.public_key().public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo)
        (tmp_path / f"{name}.pub").write_bytes(public)
    return tmp_path


@pytest.fixture
def signed(desk: Path) -> Path:
    sign_openssf(open_bundle(desk / "bundle"), Openssf(desk / "ec.pem", desk / "x.sig"))
    return desk


def signed_digests(signature: Path) -> dict[str, str]:
    """Return what a signature file says of each file."""
    payload = json.loads(base64.b64decode(json.loads(signature.read_text())["dsseEnvelope"]["payload"]))
    return {one["name"]: one["digest"] for one in payload["predicate"]["resources"]}


def digests(folder: Path) -> dict[str, str]:
    return {path.as_posix(): digest_file(folder / path) for path in files_below(folder)}


def test_a_signed_folder_verifies_by_the_digest_of_every_file(signed: Path):
    verify_openssf(signed / "bundle", signed / "ec.pub", signed / "x.sig")
    assert signed_digests(signed / "x.sig") == digests(signed / "bundle")


def test_the_signature_of_an_archive_is_one_of_its_folder(desk: Path, built: Path):
    sign_openssf(open_bundle(built / "bundle.zip"), Openssf(desk / "ec.pem", desk / "x.sig"))
    verify_openssf(desk / "bundle", desk / "ec.pub", desk / "x.sig")
    assert signed_digests(desk / "x.sig") == digests(desk / "bundle")


def test_an_encrypted_key_signs(desk: Path, monkeypatch: pytest.MonkeyPatch):
    key = form.load_pem_private_key((desk / "ec.pem").read_bytes(), None)
    lock = form.BestAvailableEncryption(SECRET.encode())
    (desk / "ec.pem").write_bytes(key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, lock))
    monkeypatch.setenv("MOBILEKD_OPENSSF_PASSPHRASE", SECRET)
    sign_openssf(open_bundle(desk / "bundle"), Openssf(desk / "ec.pem", desk / "x.sig"))
    verify_openssf(desk / "bundle", desk / "ec.pub", desk / "x.sig")
    assert signed_digests(desk / "x.sig") == digests(desk / "bundle")


def test_a_wrong_passphrase_is_refused_and_not_shown(desk: Path, monkeypatch: pytest.MonkeyPatch):
    key = form.load_pem_private_key((desk / "ec.pem").read_bytes(), None)
    lock = form.BestAvailableEncryption(b"right")
    (desk / "ec.pem").write_bytes(key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, lock))
    monkeypatch.setenv("MOBILEKD_OPENSSF_PASSPHRASE", SECRET)
    with pytest.raises(ConfigError, match="can't sign with it") as caught:
        sign_openssf(open_bundle(desk / "bundle"), Openssf(desk / "ec.pem", desk / "x.sig"))
    assert SECRET not in f"{caught.value.message} {caught.value.__cause__!r}"


CHANGES = {
    "a changed file": lambda folder: (folder / "labels.txt").write_text("evil"),
    "a missing file": lambda folder: (folder / "labels.txt").unlink(),
    "an extra file": lambda folder: (folder / "evil.py").touch(),
    "a file for git": lambda folder: (folder / ".gitattributes").touch(),
    "a link": lambda folder: (folder / "evil").symlink_to("labels.txt"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_changed_folder_is_refused(signed: Path, change):
    change(signed / "bundle")
    with pytest.raises(VerificationError):
        verify_openssf(signed / "bundle", signed / "ec.pub", signed / "x.sig")


def test_the_changed_file_is_named(signed: Path):
    (signed / "bundle/labels.txt").write_text("evil")
    with pytest.raises(VerificationError, match=r"labels\.txt"):
        verify_openssf(signed / "bundle", signed / "ec.pub", signed / "x.sig")


def test_another_key_is_refused(signed: Path):
    with pytest.raises(VerificationError, match="Key mismatch"):
        verify_openssf(signed / "bundle", signed / "other.pub", signed / "x.sig")


def _without(*keys: str):
    def change(text: str) -> str:
        document = json.loads(text)
        inner = document
        for key in keys[:-1]:
            inner = inner[key]
        inner.pop(keys[-1])
        return json.dumps(document)

    return change


SIGNATURES = {
    "empty": lambda text: "",
    "half": lambda text: text[: len(text) // 2],
    "not JSON": lambda text: "evil",
    "a list": lambda text: "[]",
    "an object": lambda text: "{}",
    "unknown field": lambda text: text.replace('"mediaType"', '"evil"', 1),
    "no signatures": lambda text: json.dumps({**json.loads(text), "dsseEnvelope": {"signatures": []}}),
    "no envelope": _without("dsseEnvelope"),
    "no key material": _without("verificationMaterial", "publicKey"),
    "no payload": _without("dsseEnvelope", "payload"),
    "deep": lambda text: "[" * 100_000,
}


@pytest.mark.parametrize("change", SIGNATURES.values(), ids=SIGNATURES.keys())
def test_a_damaged_signature_is_refused(signed: Path, change):
    (signed / "x.sig").write_text(change((signed / "x.sig").read_text()))
    with pytest.raises(VerificationError, match=r"x\.sig: does not hold"):
        verify_openssf(signed / "bundle", signed / "ec.pub", signed / "x.sig")


def test_an_ed25519_key_can_not_be_used(desk: Path):
    write_key_pair(desk / "ed", b"")
    with pytest.raises(ConfigError, match="ed: model-signing can't sign with it"):
        sign_openssf(open_bundle(desk / "bundle"), Openssf(desk / "ed", desk / "x.sig"))
    assert not (desk / "x.sig").exists()


@pytest.mark.parametrize("out", ["bundle/x.sig", "ec.pem", "absent/x.sig"])
def test_the_signature_is_not_written_into_the_bundle_or_over_a_file(desk: Path, out: str):
    with pytest.raises(ConfigError, match=out):
        sign_openssf(open_bundle(desk / "bundle"), Openssf(desk / "ec.pem", desk / out))


def test_both_options_are_needed():
    with pytest.raises(ConfigError, match="go together"):
        openssf_of(Path("x.sig"), None)


def test_a_missing_package_is_named_with_its_extra(desk: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "model_signing", None)
    with pytest.raises(MissingToolError) as caught:
        sign_openssf(open_bundle(desk / "bundle"), Openssf(desk / "ec.pem", desk / "x.sig"))
    assert caught.value.hint == "pip install 'mobilekd[openssf]'"
