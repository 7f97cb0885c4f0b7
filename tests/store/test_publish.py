"""Releases in a store: a channel names a whole release at every moment, and nothing wrong is ever handed on."""

import json
import random
import shutil
import tempfile
import time
from datetime import timedelta
from pathlib import Path

import pytest

from mobilekd import cli
from mobilekd.artifacts import digest_file
from mobilekd.errors import ConfigError, VerificationError
from mobilekd.publish import Published, PublishOptions, fetch, point_back, publish
from mobilekd.release.sign import sign_bundle
from mobilekd.release.signing_keys import read_private_key, write_key_pair
from mobilekd.store.channel import read_channel
from mobilekd.store.folder import FolderStore
from mobilekd.store.interface import ObjectStore
from mobilekd.store.objects import object_name
from mobilekd.store.opening import open_store
from mobilekd.store_upkeep import PruneOptions, prune_store
from tests.store.processes import seconds_to_publish, start_publisher

NO_GRACE = PruneOptions(grace=timedelta(seconds=-60))
NAME = "quickstart-android-arm64.mobilekd.zip"


def published(store: ObjectStore, archive: Path, keep: int = 10) -> Published:
    return publish(archive, store, PublishOptions(keep=keep))


def signed(bundle: Path) -> Path:
    """Sign a bundle with a key of its own; return the signature beside it."""
    key = bundle.with_name(f"{bundle.name}.key")
    write_key_pair(key, b"")
    return Path(sign_bundle(bundle, read_private_key(key, b"")).file)


def names(store: ObjectStore) -> set[str]:
    return {one.name for one in store.list("")}


def test_a_published_bundle_comes_back_as_it_was(
    store: ObjectStore, archives: tuple[Path, Path], tmp_path: Path
) -> None:
    done = published(store, archives[0])
    got = fetch(store, "stable", "", tmp_path / "out")
    assert (done.moved, done.sequence) == (True, 1)
    assert got.archive == tmp_path / "out" / NAME
    assert got.archive.read_bytes() == archives[0].read_bytes()
    assert [path.name for path in (tmp_path / "out").iterdir()] == [NAME]


def test_an_archive_is_published_without_a_temporary_folder_that_a_kill_would_leave(
    store: ObjectStore, archives: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    assert published(store, archives[0]).moved


def test_publishing_again_changes_nothing(store: ObjectStore, archives: tuple[Path, Path]) -> None:
    published(store, archives[0])
    before = {one.name: one.modified for one in store.list("")}
    done = published(store, archives[0])
    assert (done.moved, done.uploaded, done.mended, done.sequence) == (False, (), (), 1)
    assert {one.name: one.modified for one in store.list("")} == before


def test_a_folder_is_published_as_its_archive(tmp_path: Path, archives: tuple[Path, Path]) -> None:
    store = FolderStore(tmp_path / "store")
    published(store, archives[0])
    assert not published(store, archives[0].parent / "bundle").moved


def test_a_bundle_with_a_flipped_byte_is_not_published(tmp_path: Path, archives: tuple[Path, Path]) -> None:
    content = bytearray(archives[0].read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "bad.zip").write_bytes(content)
    with pytest.raises(VerificationError):
        published(FolderStore(tmp_path / "store"), tmp_path / "bad.zip")
    assert not (tmp_path / "store").exists()


def test_a_dry_run_says_what_it_would_do_and_writes_nothing(store: ObjectStore, archives: tuple[Path, Path]) -> None:
    done = publish(archives[0], store, PublishOptions(dry_run=True))
    assert (done.moved, done.uploaded) == (True, (object_name(digest_file(archives[0])),))
    assert names(store) == set()


def test_the_signature_beside_a_bundle_goes_with_it(
    store: ObjectStore, archives: tuple[Path, Path], tmp_path: Path
) -> None:
    archive = tmp_path / "x.zip"
    shutil.copyfile(archives[0], archive)
    signature = signed(archive)
    published(store, archive)
    got = fetch(store, "stable", "", tmp_path / "out")
    assert got.signature == tmp_path / "out" / f"{NAME}.sig.json"
    assert got.signature.read_bytes() == signature.read_bytes()


@pytest.mark.parametrize("how", ["beside", "--signature"])
def test_a_signature_of_another_bundle_is_refused_and_nothing_is_put(
    tmp_path: Path, archives: tuple[Path, Path], how: str, capfd: pytest.CaptureFixture[str]
) -> None:
    archive, other = tmp_path / "x.zip", tmp_path / "other.zip"
    shutil.copyfile(archives[0], archive)
    shutil.copyfile(archives[1], other)
    signature = signed(other).rename(tmp_path / ("x.zip.sig.json" if how == "beside" else "other.sig"))
    words = [how, str(signature)] if how == "--signature" else []
    assert cli.run(["publish", str(archive), str(tmp_path / "store"), *words]) == 7
    assert f"{signature}: signs an archive of sha256 {digest_file(other)}" in capfd.readouterr().err
    assert not (tmp_path / "store").exists()


def test_a_file_that_is_no_signature_is_refused(tmp_path: Path, archives: tuple[Path, Path]) -> None:
    (tmp_path / "notes.txt").write_text("signed")
    options = PublishOptions(signature=tmp_path / "notes.txt")
    with pytest.raises(VerificationError, match=r"notes\.txt"):
        publish(archives[0], FolderStore(tmp_path / "store"), options)


def test_a_release_that_was_signed_later_is_found_by_its_digest_with_the_signature(
    tmp_path: Path, archives: tuple[Path, Path]
) -> None:
    store, archive = FolderStore(tmp_path / "store"), tmp_path / "x.zip"
    shutil.copyfile(archives[0], archive)
    published(store, archive)
    signed(archive)
    published(store, archive)
    digest = digest_file(archive)
    assert fetch(store, "stable", digest[:12], tmp_path / "out").signature is not None


def test_the_folder_that_one_is_in_can_be_published(
    tmp_path: Path, archives: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(archives[0].parent / "bundle")
    assert published(FolderStore(tmp_path / "store"), Path()).moved


def test_a_signature_that_is_not_there_is_named(tmp_path: Path, archives: tuple[Path, Path]) -> None:
    options = PublishOptions(signature=tmp_path / "gone.sig.json")
    with pytest.raises(ConfigError, match=r"gone\.sig\.json"):
        publish(archives[0], FolderStore(tmp_path / "store"), options)


def test_a_signature_of_an_older_release_does_not_stay_beside_a_newer_one(
    tmp_path: Path, archives: tuple[Path, Path]
) -> None:
    (tmp_path / f"{NAME}.sig.json").write_text("old")
    store = FolderStore(tmp_path / "store")
    published(store, archives[0])
    fetch(store, "stable", "", tmp_path)
    assert not (tmp_path / f"{NAME}.sig.json").exists()


def test_a_flipped_byte_in_the_store_is_refused_by_name_and_leaves_nothing(
    store: ObjectStore, archives: tuple[Path, Path], tmp_path: Path
) -> None:
    name = object_name(published(store, archives[0]).release.archive.sha256)
    content = bytearray(archives[0].read_bytes())
    content[5000] ^= 1
    store.renew(name, bytes(content))
    with pytest.raises(VerificationError, match=name):
        fetch(store, "stable", "", tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_publishing_again_mends_a_damaged_object(
    store: ObjectStore, archives: tuple[Path, Path], tmp_path: Path
) -> None:
    name = object_name(published(store, archives[0]).release.archive.sha256)
    store.renew(name, b"damaged")
    assert name in published(store, archives[0]).mended
    assert fetch(store, "stable", "", tmp_path).archive.read_bytes() == archives[0].read_bytes()


def test_publishing_again_brings_back_a_missing_object(store: ObjectStore, archives: tuple[Path, Path]) -> None:
    name = object_name(published(store, archives[0]).release.archive.sha256)
    store.delete(name)
    done = published(store, archives[0])
    assert (done.uploaded, done.moved) == ((name,), False)


def test_an_archive_that_is_not_the_bundle_it_is_called_is_refused(tmp_path: Path, archives: tuple[Path, Path]) -> None:
    store = FolderStore(tmp_path / "store")
    published(store, archives[0])
    pointer = tmp_path / "store" / "channels" / "stable.json"
    document = json.loads(pointer.read_text())
    document["release"]["bundle"] = "0" * 64
    pointer.write_text(json.dumps(document))
    with pytest.raises(VerificationError, match="holds the bundle"):
        fetch(store, "stable", "", tmp_path / "out")


@pytest.mark.parametrize("key", ["schema", "channel", "sequence", "release", "history"])
def test_a_pointer_that_lacks_a_key_is_refused_by_name(tmp_path: Path, archives: tuple[Path, Path], key: str) -> None:
    store = FolderStore(tmp_path / "store")
    published(store, archives[0])
    pointer = tmp_path / "store" / "channels" / "stable.json"
    pointer.write_text(json.dumps({**json.loads(pointer.read_text()), key: None}))
    with pytest.raises(VerificationError, match=rf"channels/stable\.json: {key}"):
        fetch(store, "stable", "", tmp_path / "out")


@pytest.mark.parametrize(
    ("key", "value"),
    [("name", "../evil"), ("name", ".hidden"), ("name", "a\nb"), ("published", "\x1b[2J"), ("bundle", "abc")],
)
def test_a_pointer_with_a_value_that_is_not_safe_is_refused(
    tmp_path: Path, archives: tuple[Path, Path], key: str, value: str
) -> None:
    store = FolderStore(tmp_path / "store")
    published(store, archives[0])
    pointer = tmp_path / "store" / "channels" / "stable.json"
    document = json.loads(pointer.read_text())
    pointer.write_text(json.dumps({**document, "release": {**document["release"], key: value}}))
    with pytest.raises(VerificationError, match=rf"release\.{key}"):
        fetch(store, "stable", "", tmp_path / "out")


def test_a_channel_remembers_its_releases_newest_first(store: ObjectStore, archives: tuple[Path, Path]) -> None:
    first, second = (published(store, one).release for one in archives)
    channel = read_channel(store, "stable")
    assert channel.releases() == (second, first)
    assert channel.sequence == 2


def test_an_older_release_is_fetched_by_the_start_of_its_digest(
    store: ObjectStore, archives: tuple[Path, Path], tmp_path: Path
) -> None:
    first, _ = (published(store, one).release for one in archives)
    got = fetch(store, "stable", first.bundle[:8], tmp_path)
    assert got.archive.read_bytes() == archives[0].read_bytes()


def test_a_channel_points_back_and_keeps_what_was_newer(store: ObjectStore, archives: tuple[Path, Path]) -> None:
    first, second = (published(store, one).release for one in archives)
    channel = point_back(store, "stable", first.bundle)
    assert channel.releases() == (first, second)
    assert channel.sequence == 3


def test_a_channel_does_not_point_back_at_a_damaged_release(store: ObjectStore, archives: tuple[Path, Path]) -> None:
    first, second = (published(store, one).release for one in archives)
    store.renew(object_name(first.archive.sha256), b"damaged")
    with pytest.raises(VerificationError, match=object_name(first.archive.sha256)):
        point_back(store, "stable", first.bundle)
    assert read_channel(store, "stable").release == second


def test_prune_keeps_every_release_that_a_channel_remembers(store: ObjectStore, archives: tuple[Path, Path]) -> None:
    [published(store, one) for one in archives]
    before = names(store)
    assert prune_store(store, NO_GRACE).names == ()
    assert names(store) == before


def test_prune_deletes_what_no_channel_remembers(store: ObjectStore, archives: tuple[Path, Path]) -> None:
    first, second = (published(store, one, keep=1).release for one in archives)
    assert prune_store(store, NO_GRACE).names == (object_name(first.archive.sha256),)
    assert names(store) == {"channels/stable.json", object_name(second.archive.sha256)}


def test_prune_leaves_what_is_new(store: ObjectStore, archives: tuple[Path, Path]) -> None:
    [published(store, one, keep=1) for one in archives]
    before = names(store)
    assert prune_store(store, PruneOptions()).names == ()
    assert names(store) == before


def test_prune_deletes_nothing_when_a_channel_can_not_be_read(tmp_path: Path, archives: tuple[Path, Path]) -> None:
    store = FolderStore(tmp_path / "store")
    published(store, archives[0])
    (tmp_path / "store" / "channels" / "beta.json").write_text("{")
    with pytest.raises(VerificationError, match=r"channels/beta\.json"):
        prune_store(store, NO_GRACE)
    assert len(list(store.list("objects/"))) == 1


def test_two_publishers_at_once_are_both_remembered(store: ObjectStore, url: str, archives: tuple[Path, Path]) -> None:
    both = [start_publisher(one, url) for one in archives]
    [one.join(timeout=300) for one in both]
    channel = read_channel(store, "stable")
    assert channel.sequence == 2
    assert {one.archive.sha256 for one in channel.releases()} == set(map(digest_file, archives))


@pytest.fixture(scope="module")
def folder_seconds(archives: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> float:
    return seconds_to_publish(archives[0], str(tmp_path_factory.mktemp("timed")))


def publish_killed(archive: Path, url: str, after_s: float) -> None:
    killed = start_publisher(archive, url)
    time.sleep(after_s)
    killed.kill()
    killed.join()


@pytest.mark.parametrize("seed", range(20))
def test_a_publisher_killed_at_any_moment_leaves_a_channel_that_points_at_a_whole_release(
    tmp_path: Path, archives: tuple[Path, Path], folder_seconds: float, seed: int
) -> None:
    store = FolderStore(tmp_path / "store")
    first = published(store, archives[0]).release
    publish_killed(archives[1], store.url, random.Random(seed).uniform(0, folder_seconds))
    assert fetch(store, "stable", "", tmp_path / "a").archive.read_bytes() in [one.read_bytes() for one in archives]
    second = published(store, archives[1]).release
    assert fetch(store, "stable", "", tmp_path / "b").archive.read_bytes() == archives[1].read_bytes()
    assert [one.files() for one in read_channel(store, "stable").releases()] == [second.files(), first.files()]


@pytest.mark.parametrize("seed", range(5))
def test_a_publisher_to_a_bucket_killed_at_any_moment_does_the_same(
    s3_url: str, archives: tuple[Path, Path], tmp_path: Path, seed: int
) -> None:
    store = open_store(s3_url)
    published(store, archives[0])
    publish_killed(archives[1], s3_url, random.Random(seed).uniform(0, 0.15))
    assert fetch(store, "stable", "", tmp_path / "a").archive.read_bytes() in [one.read_bytes() for one in archives]
    published(store, archives[1])
    assert fetch(store, "stable", "", tmp_path / "b").archive.read_bytes() == archives[1].read_bytes()


def test_prune_takes_away_what_a_killed_writer_left(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    store.put_new("a/b", b"one")
    left = next((tmp_path / ".mobilekd-store").glob("new")) / "half"
    left.write_bytes(b"half")
    prune_store(store, NO_GRACE)
    assert not left.exists()


@pytest.mark.parametrize("name", ["", "Stable", "../x", "a/b", ".hidden", "a" * 65, "a b"])
def test_a_channel_name_that_is_not_allowed_ends_in_2(
    tmp_path: Path, archives: tuple[Path, Path], name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["publish", str(archives[0]), str(tmp_path / "store"), "--channel", name]) == 2
    assert f"{name!r} is no name of a channel" in capfd.readouterr().err
    assert not (tmp_path / "store").exists()


def test_a_channel_that_is_not_there_is_told_with_those_that_are(
    tmp_path: Path, archives: tuple[Path, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    published(FolderStore(tmp_path), archives[0])
    assert cli.run(["fetch", str(tmp_path), "--channel", "beta", "--out", str(tmp_path / "out")]) == 2
    err = capfd.readouterr().err
    assert "there is no channel 'beta'" in err
    assert "there are: stable" in err


@pytest.mark.parametrize(("digest", "told"), [("123", "8 digits at least"), ("0" * 64, "has no release")])
def test_a_digest_that_no_release_has_is_told(
    tmp_path: Path, archives: tuple[Path, Path], digest: str, told: str
) -> None:
    store = FolderStore(tmp_path / "store")
    published(store, archives[0])
    with pytest.raises(ConfigError, match=told):
        fetch(store, "stable", digest, tmp_path / "out")


def test_the_commands_print_one_json_object_each(
    url: str, archives: tuple[Path, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def shown(*words: str) -> dict[str, object]:
        assert cli.run([*words, "--json"]) == 0
        return json.loads(capfd.readouterr().out)

    sha256 = digest_file(archives[0])
    assert shown("publish", str(archives[0]), url)["moved"] is True
    assert shown("publish", str(archives[0]), url)["moved"] is False
    assert shown("fetch", url, "--out", str(tmp_path / "out"))["release"]["archive"]["sha256"] == sha256
    assert shown("store", "list", url)["states"] == {sha256: "whole"}
    assert shown("store", "rollback", url, "--digest", sha256)["sequence"] == 1
    assert shown("store", "prune", url)["kept"] == 1


@pytest.mark.parametrize("option", ["--grace-hours", "--stage-days"])
@pytest.mark.parametrize("value", ["inf", "1e12", "nan", "-1"])
def test_an_age_before_all_time_is_a_mistake(tmp_path: Path, option: str, value: str) -> None:
    assert cli.run(["store", "prune", str(tmp_path), option, value]) == 2
