import base64
import hashlib
import json
import random
import shutil
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

from mobilekd.artifacts import canonical_json, digest_file
from mobilekd.errors import ConfigError, VerificationError
from mobilekd.release import bundle, signature
from mobilekd.release.archive import MAX_FILES, read_archive, write_archive
from mobilekd.release.bundle import verify
from mobilekd.release.reruns import NO_RUNS
from mobilekd.release.sign import sign_bundle
from mobilekd.release.signature import Trust
from mobilekd.release.signing_keys import PrivateKey, read_private_key, write_key_pair
from mobilekd.release.statement import parse_statement, statement_of, statement_text

from .hostile.site import seal
from .test_bundle import MustNotRun
from .workshop import MatrixRuntime

TRIALS_OF_THE_ARCHIVE, TRIALS_OF_THE_SIGNATURE = 700, 300


@dataclass(frozen=True)
class Desk:
    """A signed bundle, as archive and as folder, and the keys of two people."""

    root: Path
    key: PrivateKey

    @property
    def archive(self) -> Path:
        return self.root / "x.zip"

    @property
    def folder(self) -> Path:
        return self.root / "bundle"

    @property
    def signature(self) -> Path:
        return self.root / "x.zip.sig.json"

    def trust(self, *names: str) -> Trust:
        return Trust(tuple(self.root / f"{name}.pub" for name in names), self.signature)

    def statement(self) -> dict[str, object]:
        document: dict[str, object] = json.loads(base64.b64decode(json.loads(self.signature.read_text())["payload"]))
        return document


@pytest.fixture
def desk(built: Path, tmp_path: Path) -> Desk:
    shutil.copyfile(built / "bundle.zip", tmp_path / "x.zip")
    shutil.copytree(built / "bundle", tmp_path / "bundle")
    for name in ("mine", "other"):
        write_key_pair(tmp_path / name, b"")
    desk = Desk(tmp_path, read_private_key(tmp_path / "mine", b""))
    sign_bundle(desk.archive, desk.key)
    return desk


def test_a_signed_bundle_verifies_and_names_its_signer(desk: Desk):
    found = verify(desk.archive, MatrixRuntime(), desk.trust("mine")).signature
    assert (found.state, found.keyid, found.key) == ("checked", desk.key.keyid, str(desk.root / "mine.pub"))


def test_the_folder_verifies_by_the_same_signature(desk: Desk):
    assert verify(desk.folder, NO_RUNS, desk.trust("mine")).signature.state == "checked"


def test_one_trusted_key_of_several_is_enough(desk: Desk):
    assert verify(desk.archive, NO_RUNS, desk.trust("other", "mine")).signature.keyid == desk.key.keyid


def test_signing_again_gives_the_same_bytes(desk: Desk):
    before = desk.signature.read_bytes()
    sign_bundle(desk.archive, desk.key)
    assert desk.signature.read_bytes() == before


def test_signing_the_folder_gives_the_same_bytes(desk: Desk):
    sign_bundle(desk.folder, desk.key)
    assert (desk.root / "bundle.sig.json").read_bytes() == desk.signature.read_bytes()


def test_the_subjects_are_the_archive_and_every_file(desk: Desk):
    files = {entry.name: digest_file(desk.folder / entry.name) for entry in read_archive(desk.archive)}
    subjects = [("bundle.zip", digest_file(desk.archive)), *sorted(files.items())]
    assert desk.statement()["subject"] == [{"name": name, "digest": {"sha256": sha256}} for name, sha256 in subjects]


def test_the_predicate_is_the_provenance_of_the_build(desk: Desk):
    assert desk.statement()["predicate"] == json.loads((desk.folder / "provenance.json").read_text())


def test_the_predicate_of_a_bundle_without_provenance_says_what_was_built_with_which_tools(desk: Desk):
    _take_away(desk.folder, "provenance.json")
    sign_bundle(desk.folder, desk.key, desk.signature)
    predicate = json.loads(json.dumps(desk.statement()["predicate"]))
    assert predicate["buildDefinition"] == {
        "buildType": "urn:mobilekd:build:1",
        "externalParameters": {"pipeline": "quickstart", "profile": "android-arm64"},
    }
    assert predicate["runDetails"]["builder"]["version"]["tflite"] == "1.2.3"


def _add(folder: Path, name: str, content: bytes) -> None:
    """Add a file to a bundle, and make its digests fit."""
    (folder / name).write_bytes(content)
    manifest = json.loads((folder / "manifest.json").read_text())
    entry = {"path": name, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    manifest["files"] = sorted([*manifest["files"], entry], key=lambda one: one["path"])
    (folder / "manifest.json").write_text(canonical_json(manifest))
    seal(folder)


def _take_away(folder: Path, name: str) -> None:
    """Take a file out of a bundle, and make its digests fit."""
    (folder / name).unlink()
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"] = [one for one in manifest["files"] if one["path"] != name]
    (folder / "manifest.json").write_text(canonical_json(manifest))
    seal(folder)


def test_a_broken_bundle_is_not_signed(desk: Desk):
    (desk.folder / "labels.txt").write_text("evil")
    with pytest.raises(VerificationError, match=r"labels\.txt"):
        sign_bundle(desk.folder, desk.key)
    assert not (desk.root / "bundle.sig.json").exists()


def test_a_signature_is_not_written_into_the_bundle(desk: Desk):
    with pytest.raises(ConfigError, match="inside the bundle"):
        sign_bundle(desk.folder, desk.key, desk.folder / "x.sig.json")


@pytest.mark.parametrize("name", ["mine", "x.zip"])
def test_a_signature_overwrites_nothing_but_a_signature(desk: Desk, name: str):
    before = (desk.root / name).read_bytes()
    with pytest.raises(ConfigError, match="is no signature"):
        sign_bundle(desk.archive, desk.key, desk.root / name)
    assert (desk.root / name).read_bytes() == before


def test_nothing_half_written_stays_beside_a_signature(desk: Desk):
    names = {path.name for path in desk.root.iterdir()}
    assert names == {"x.zip", "x.zip.sig.json", "bundle", "mine", "mine.pub", "other", "other.pub"}


def test_a_signature_without_a_key_is_reported_as_not_checked(desk: Desk):
    found = verify(desk.archive, NO_RUNS).signature
    assert (found.state, found.keyid, found.key) == ("not checked", desk.key.keyid, "")


def test_a_bundle_without_a_signature_is_reported_as_unsigned(desk: Desk):
    assert verify(desk.folder, NO_RUNS).signature.state == "none"


def test_a_key_makes_a_signature_necessary(desk: Desk):
    with pytest.raises(VerificationError, match=r"unsigned: there is no .*bundle\.sig\.json"):
        verify(desk.folder, MustNotRun(), Trust((desk.root / "mine.pub",)))


def test_a_required_signature_needs_a_key(desk: Desk):
    with pytest.raises(ConfigError, match="--require-signature needs a key") as caught:
        verify(desk.archive, MustNotRun(), Trust(required=True))
    assert caught.value.hint.startswith("--key")


def test_a_signature_of_another_key_is_refused(desk: Desk):
    with pytest.raises(VerificationError, match=f"signed by keyid {desk.key.keyid}, trusted: "):
        verify(desk.archive, MustNotRun(), desk.trust("other"))


def test_the_archive_is_not_parsed_before_its_digest_holds(desk: Desk, monkeypatch: pytest.MonkeyPatch):
    order: list[str] = []
    for module, name in ((signature, "digest_file"), (bundle, "open_bundle")):
        _record(monkeypatch, module, name, order)
    verify(desk.archive, NO_RUNS, desk.trust("mine"))
    assert order == ["digest_file", "open_bundle"]


def _record(monkeypatch: pytest.MonkeyPatch, module: ModuleType, name: str, order: list[str]) -> None:
    real = getattr(module, name)
    monkeypatch.setattr(module, name, lambda path: (order.append(name), real(path))[1])


def test_an_older_signed_bundle_is_not_taken_for_this_one(desk: Desk):
    _add(desk.folder, "new.txt", b"new")
    write_archive(desk.folder, desk.root / "y.zip")
    sign_bundle(desk.root / "y.zip", desk.key)
    with pytest.raises(VerificationError, match=r"x\.zip: new\.txt: missing, it was signed"):
        verify(desk.archive, MustNotRun(), Trust((desk.root / "mine.pub",), desk.root / "y.zip.sig.json"))


def test_1000_changed_bytes_of_a_signed_bundle_are_all_refused_and_named(desk: Desk):
    rng = random.Random(20261126)
    owners = _owners(desk.archive)
    trials = [(desk.archive, rng.randrange(len(owners))) for _ in range(TRIALS_OF_THE_ARCHIVE)]
    size = desk.signature.stat().st_size
    trials += [(desk.signature, rng.randrange(size)) for _ in range(TRIALS_OF_THE_SIGNATURE)]
    told = [(path, at, _told_after_a_change(desk, path, at, rng.randrange(1, 256))) for path, at in trials]
    named = {desk.archive: owners, desk.signature: [str(desk.signature)] * size}
    assert [(path.name, at, said) for path, at, said in told if named[path][at] not in said] == []


def _owners(archive: Path) -> list[str]:
    """Return what has to be named for each byte of an archive: the file it is of, else the archive."""
    owners = [str(archive)] * archive.stat().st_size
    for entry in read_archive(archive):
        owners[entry.data_offset : entry.data_offset + entry.size] = [entry.name] * entry.size
    return owners


def _told_after_a_change(desk: Desk, path: Path, at: int, flip: int) -> str:
    """Return why a bundle is refused after one byte was changed, which is then changed back; "accepted" if it isn't."""
    with path.open("r+b") as stream:
        stream.seek(at)
        old = stream.read(1)
        try:
            _write_at(stream, at, bytes([old[0] ^ flip]))
            verify(desk.archive, MustNotRun(), desk.trust("mine"))
        except VerificationError as refused:
            return refused.message
        finally:
            _write_at(stream, at, old)
    return "accepted"


def _write_at(stream: object, at: int, content: bytes) -> None:
    stream.seek(at)  # type: ignore[attr-defined]
    stream.write(content)  # type: ignore[attr-defined]
    stream.flush()  # type: ignore[attr-defined]


def test_a_statement_of_as_many_files_as_a_bundle_may_hold_is_read():
    files = {f"f{number}": "0" * 64 for number in range(MAX_FILES)}
    payload = statement_text(statement_of("0" * 64, files, {})).encode()
    assert parse_statement(payload, "x.sig.json").files == files
