"""keygen, sign and verify as a release engineer types them."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization as form
from cryptography.hazmat.primitives.asymmetric import ec

from mobilekd import cli
from tests.release.conftest import built  # noqa: F401 - a fixture

SECRET = "hunter2-hunter2"


@pytest.fixture
def desk(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:  # noqa: F811 - a fixture
    """Where x.zip lies, and where commands run."""
    shutil.copyfile(built / "bundle.zip", tmp_path / "x.zip")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MOBILEKD_KEY_PASSPHRASE", raising=False)
    return tmp_path


@pytest.fixture
def signed(desk: Path, capfd: pytest.CaptureFixture[str]) -> Path:
    run("bundle keygen --out k --no-passphrase")
    run("bundle sign x.zip --key k")
    capfd.readouterr()
    return desk


def run(words: str) -> int:
    return cli.run(words.split())


def test_a_key_signs_and_its_public_half_verifies(desk: Path, capfd: pytest.CaptureFixture[str]):
    (desk / "secret").write_text(f"{SECRET}\n")
    codes = [
        run("bundle keygen --out k --passphrase-file secret"),
        run("bundle sign x.zip --key k --passphrase-file secret"),
        run("bundle verify x.zip --key k.pub --no-run"),
    ]
    assert codes == [0, 0, 0]
    assert "(k.pub) signed every file" in capfd.readouterr().out


def test_keygen_tells_where_the_halves_are(desk: Path, capfd: pytest.CaptureFixture[str]):
    run("bundle keygen --out k --no-passphrase --json")
    document = json.loads(capfd.readouterr().out)
    assert (document["private"], document["public"], len(document["keyid"])) == ("k", "k.pub", 64)


def test_keygen_without_a_passphrase_or_a_terminal_writes_nothing(desk: Path):
    command = [sys.executable, "-m", "mobilekd", "bundle", "keygen", "--out", "k"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert (done.returncode, (desk / "k").exists(), "--no-passphrase" in done.stderr) == (2, False, True)


def test_a_private_key_may_not_lie_in_the_cache(desk: Path, capfd: pytest.CaptureFixture[str]):
    (desk / "default-cache").mkdir()
    assert run("bundle keygen --out default-cache/k --no-passphrase") == 2
    assert "the cache" in capfd.readouterr().err


def test_a_wrong_passphrase_ends_in_2_and_is_shown_nowhere(desk: Path, capfd: pytest.CaptureFixture[str], monkeypatch):
    (desk / "secret").write_text("right")
    run("bundle keygen --out k --passphrase-file secret")
    monkeypatch.setenv("MOBILEKD_KEY_PASSPHRASE", SECRET)
    monkeypatch.setenv("MOBILEKD_DEBUG", "1")
    assert run("bundle sign x.zip --key k") == 2
    told = "".join(capfd.readouterr())
    assert ("the passphrase does not open it" in told, SECRET in told, "right" in told) == (True, False, False)


def test_verification_is_one_json_object(signed: Path, capfd: pytest.CaptureFixture[str]):
    assert run("bundle verify x.zip --key k.pub --no-run --json") == 0
    document = json.loads(capfd.readouterr().out)
    assert document["signature"] == {
        "state": "checked",
        "file": "x.zip.sig.json",
        "keyid": document["signature"]["keyid"],
        "key": "k.pub",
    }
    assert {one["reason"] for one in document["not_run"]} >= {"not asked for (--no-run)"}


def test_a_signature_that_nobody_checked_is_told(signed: Path, capfd: pytest.CaptureFixture[str]):
    assert run("bundle verify x.zip --no-run") == 0
    assert "not checked: x.zip.sig.json says keyid" in capfd.readouterr().out


def test_an_unsigned_bundle_is_told(desk: Path, capfd: pytest.CaptureFixture[str]):
    assert run("bundle verify x.zip --no-run") == 0
    assert "none: there is no x.zip.sig.json" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        ("bundle verify x.zip --no-run --require-signature", 2, "--key KEY.pub"),
        ("bundle verify x.zip --no-run --key gone.pub", 2, "gone.pub"),
        ("bundle verify x.zip --no-run --key k", 2, "--key k.pub"),
        ("bundle verify x.zip --no-run --key k.pub --signature gone.json", 7, "unsigned: there is no gone.json"),
        ("bundle verify gone.zip --no-run --key k.pub", 2, "gone.zip: no such bundle"),
        ("bundle sign gone.zip --key k", 2, "gone.zip: no such bundle"),
        ("bundle sign x.zip --key k.pub", 2, "hint: --key k\n"),
        ("bundle sign x.zip --key k --out x.zip", 2, "choose another --out"),
        ("bundle sign x.zip --key k --openssf x.sig --openssf-key k", 2, "no EC key"),
        ("bundle verify x.zip --no-run --key x.zip", 2, "--key KEY.pub, from who signs"),
        ("bundle verify x.zip --no-run --key .", 2, "--key KEY.pub, from who signs"),
        ("bundle keygen --out . --no-passphrase", 2, "a file is needed"),
        ("bundle keygen --out no/k --no-passphrase", 2, "mkdir -p no"),
        ("bundle keygen --out n --no-passphrase --passphrase-file k", 2, "exclude each other"),
        ("bundle sign x.zip --key k --openssf x.sig", 2, "go together"),
        ("bundle keygen --out k --no-passphrase", 2, "never overwritten"),
    ],
)
def test_a_mistake_ends_with_its_code_and_a_message(
    signed: Path, capfd: pytest.CaptureFixture[str], words: str, code: int, told: str
):
    assert run(words) == code
    out, err = capfd.readouterr()
    assert (out, told in err, "Traceback" in err) == ("", True, False), err


def test_a_key_without_a_signature_ends_in_7(desk: Path, capfd: pytest.CaptureFixture[str]):
    run("bundle keygen --out k --no-passphrase")
    assert run("bundle verify x.zip --key k.pub --no-run") == 7
    assert "x.zip: unsigned" in capfd.readouterr().err


def test_a_changed_bundle_ends_in_7(signed: Path, capfd: pytest.CaptureFixture[str]):
    content = (signed / "x.zip").read_bytes()
    (signed / "x.zip").write_bytes(content.replace(b"digit 7", b"digit 9", 1))
    assert run("bundle verify x.zip --key k.pub") == 7
    assert "its content does not match its checksum (not the archive that was signed)" in capfd.readouterr().err


def test_a_key_that_may_have_been_meant_to_be_encrypted_is_not_written(signed: Path):
    run("bundle keygen --out n --no-passphrase --passphrase-file k")
    assert not (signed / "n").exists()


def test_two_signatures_are_told(desk: Path, capfd: pytest.CaptureFixture[str]):
    ec_key = ec.generate_private_key(ec.SECP256R1())
    (desk / "ec.pem").write_bytes(
        ec_key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
    )
    run("bundle keygen --out k --no-passphrase")
    assert run("bundle sign x.zip --key k --openssf x.sig --openssf-key ec.pem --json") == 0
    out = capfd.readouterr().out
    assert (json.loads(out[out.index("{") :])["openssf"], (desk / "x.sig").is_file()) == ("x.sig", True)
