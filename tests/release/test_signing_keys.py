import io
import os
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization as form
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from mobilekd.errors import ConfigError
from mobilekd.release.passphrases import new_passphrase, passphrase_of
from mobilekd.release.signing_keys import read_private_key, read_public_key, write_key_pair

SECRET = b"correct horse battery staple"


@pytest.fixture
def key(tmp_path: Path) -> Path:
    write_key_pair(tmp_path / "key", SECRET)
    return tmp_path / "key"


def test_the_keyid_is_the_sha256_of_the_raw_public_key(tmp_path: Path):
    # RFC 8032, section 7.1, test 1; its sha256 by another tool: `sha256sum`.
    raw = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
    public = ed25519.Ed25519PublicKey.from_public_bytes(raw)
    pem = public.public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "k.pub").write_bytes(pem)
    assert read_public_key(tmp_path / "k.pub").keyid == (
        "21fe31dfa154a261626bf854046fd2271b7bed4b6abe45aa58877ef47f9721b9"
    )


def test_a_signature_is_that_of_rfc_8032(tmp_path: Path):
    raw = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    private = ed25519.Ed25519PrivateKey.from_private_bytes(raw)
    pem = private.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
    (tmp_path / "k").write_bytes(pem)
    assert read_private_key(tmp_path / "k", b"").sign(b"").hex().startswith("e5564300c360ac729086e2cc806e828a")


def test_only_the_owner_can_read_a_private_key(key: Path):
    assert stat.S_IMODE(key.stat().st_mode) == 0o600


def test_a_private_key_is_encrypted(key: Path):
    assert key.read_bytes().startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----")


def test_both_halves_have_one_keyid(key: Path):
    assert read_private_key(key, SECRET).keyid == read_public_key(key.with_name("key.pub")).keyid


def test_a_signature_holds_for_its_content_only(key: Path):
    public, signature = read_public_key(key.with_name("key.pub")), read_private_key(key, SECRET).sign(b"content")
    assert (public.accepts(signature, b"content"), public.accepts(signature, b"Content")) == (True, False)


def test_a_wrong_passphrase_is_refused_and_not_shown(key: Path):
    with pytest.raises(ConfigError, match="the passphrase does not open it") as caught:
        read_private_key(key, b"hunter2")
    shown = f"{caught.value.message} {caught.value.hint} {caught.value.__cause__!r}"
    assert "hunter2" not in shown


@pytest.mark.parametrize("taken", ["key", "key.pub"])
def test_a_key_is_never_overwritten(tmp_path: Path, taken: str):
    (tmp_path / taken).write_text("precious")
    with pytest.raises(ConfigError, match="never overwritten"):
        write_key_pair(tmp_path / "key", b"")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(taken, "precious")]


def test_a_link_to_nothing_is_not_written_through(tmp_path: Path):
    (tmp_path / "key").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="never overwritten"):
        write_key_pair(tmp_path / "key", b"")


def test_a_private_key_is_not_written_into_a_bundle(built: Path):
    with pytest.raises(ConfigError, match="inside the bundle"):
        write_key_pair(built / "bundle/models/key", b"")


def test_a_private_key_is_not_written_into_the_cache(tmp_path: Path):
    (tmp_path / "cache/stages").mkdir(parents=True)
    with pytest.raises(ConfigError, match="the cache"):
        write_key_pair(tmp_path / "cache/stages/key", b"", away_from=(tmp_path / "cache",))


def test_a_missing_folder_is_named(tmp_path: Path):
    with pytest.raises(ConfigError, match="no such folder"):
        write_key_pair(tmp_path / "absent/key", b"")


def _pem(tmp_path: Path, name: str) -> Path:
    private = ec.generate_private_key(ec.SECP256R1())
    pems = {
        "ec": private.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption()),
        "ec.pub": private.public_key().public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo),
        "text": b"hello",
        "empty": b"",
        "broken": b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
    }
    (tmp_path / name).write_bytes(pems[name])
    return tmp_path / name


@pytest.mark.parametrize("name", ["ec", "ec.pub", "text", "empty", "broken"])
def test_what_is_no_private_ed25519_key_does_not_sign(tmp_path: Path, name: str):
    with pytest.raises(ConfigError, match=str(tmp_path / name)):
        read_private_key(_pem(tmp_path, name), b"")


@pytest.mark.parametrize("name", ["ec", "ec.pub", "text", "empty", "broken"])
def test_what_is_no_public_ed25519_key_is_not_trusted(tmp_path: Path, name: str):
    with pytest.raises(ConfigError, match=str(tmp_path / name)):
        read_public_key(_pem(tmp_path, name))


def test_a_private_key_given_to_verify_is_told_from_a_public_one(key: Path):
    with pytest.raises(ConfigError, match="a private key") as caught:
        read_public_key(key)
    assert caught.value.hint == f"--key {key}.pub"


@pytest.mark.parametrize("name", ["absent", "."])
def test_a_key_that_is_not_there_is_named(tmp_path: Path, name: str):
    with pytest.raises(ConfigError, match=str(tmp_path)):
        read_public_key(tmp_path / name)


def test_a_pipe_is_no_key(tmp_path: Path):
    os.mkfifo(tmp_path / "key")
    with pytest.raises(ConfigError, match="not a file"):
        read_private_key(tmp_path / "key", b"")


def test_the_first_line_of_a_file_is_the_passphrase(key: Path, tmp_path: Path):
    (tmp_path / "secret").write_bytes(SECRET + b"\r\nsecond line\n")
    assert passphrase_of(key, tmp_path / "secret") == SECRET


def test_the_environment_gives_the_passphrase(key: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MOBILEKD_KEY_PASSPHRASE", SECRET.decode())
    assert (passphrase_of(key, None), new_passphrase(key, None)) == (SECRET, SECRET)


def test_a_key_without_a_passphrase_asks_for_none(tmp_path: Path):
    write_key_pair(tmp_path / "key", b"")
    assert passphrase_of(tmp_path / "key", None) == b""


def test_without_a_terminal_a_passphrase_can_not_be_asked_for(key: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("MOBILEKD_KEY_PASSPHRASE", raising=False)
    monkeypatch.setattr("sys.stdin", io.StringIO("typed by nobody\n"))
    with pytest.raises(ConfigError, match="no terminal to ask at"):
        passphrase_of(key, None)


@pytest.mark.parametrize("content", [b"", b"\n", b"x" * 1001])
def test_an_unusable_passphrase_is_refused(tmp_path: Path, content: bytes):
    (tmp_path / "secret").write_bytes(content)
    with pytest.raises(ConfigError, match=r"passphrase|empty"):
        new_passphrase(tmp_path / "key", tmp_path / "secret")
