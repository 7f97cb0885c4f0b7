"""Two machines are two local caches; what they share is a store in a folder or a bucket."""

import json
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from mobilekd import cli, config
from mobilekd.cache import Cache
from mobilekd.entry import digest_of
from mobilekd.errors import ConfigError
from mobilekd.pipeline import BuildResult, Workshop, build, plan
from mobilekd.plan import Again
from mobilekd.profile import Profile
from mobilekd.record import write_record
from mobilekd.shared_cache import SharedCache
from mobilekd.store.folder import FolderStore
from mobilekd.store.interface import MAX_DOCUMENT_BYTES, ObjectStore
from mobilekd.store.objects import read_document
from mobilekd.store.opening import open_store
from mobilekd.store_upkeep import PruneOptions, prune_store
from tests.store.conftest import make_bucket
from tests.toys import Distil, Silent, Train, toy_pipeline

ALL = ["data", "train", "distil", "deploy:one", "deploy:two", "measure"]
SHARED = ALL[:5]
Machine = Callable[..., Workshop]
_ENDLESS = '{"files": {"a": {"sha256": "", "bytes": Infinity}}}'


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """Make a machine: a local cache of its own, and the URL of what it shares."""

    def make(name: str, url: str) -> Workshop:
        watcher = Silent()
        return Workshop(Cache(tmp_path / name), tmp_path, watcher, shared=SharedCache(url, watcher.say))

    return make


@pytest.fixture
def folder(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "shared")


def why(result: BuildResult) -> dict[str, str]:
    return {one.name: one.why for one in result.stages}


def ran(result: BuildResult) -> list[str]:
    return [one.name for one in result.stages if not one.cached]


def record_of(folder: FolderStore, stage: str) -> Path:
    return next((folder.root / "stages" / stage).iterdir())


def object_of(folder: FolderStore, stage: str) -> Path:
    sha256 = json.loads(record_of(folder, stage).read_text())["files"]["content"]["sha256"]
    return folder.root / "objects" / "sha256" / sha256[:2] / sha256


def test_an_empty_machine_gets_what_another_made(url: str, machine: Machine, profile: Profile) -> None:
    first = build(toy_pipeline(), profile, machine("first", url))
    second = build(toy_pipeline(), profile, machine("second", url))
    assert ran(first) == ALL
    assert why(second) == {**dict.fromkeys(SHARED, "shared cache"), "measure": "no entry yet"}
    assert [one.digest for one in second.made[:5]] == [one.digest for one in first.made[:5]]


def test_a_machine_that_has_a_stage_asks_nobody(folder: FolderStore, machine: Machine, profile: Profile) -> None:
    build(toy_pipeline(), profile, machine("first", folder.url))
    shutil.rmtree(folder.root)
    again = build(toy_pipeline(), profile, machine("first", folder.url))
    assert ran(again) == []
    assert not folder.root.exists()


def test_a_measurement_is_never_shared(store: ObjectStore, url: str, machine: Machine, profile: Profile) -> None:
    build(toy_pipeline(), profile, machine("first", url))
    assert {one.name.split("/")[1] for one in store.list("stages/")} == {"data", "train", "distil", "deploy"}


def test_the_plan_names_the_shared_cache_and_gets_no_file(
    folder: FolderStore, machine: Machine, profile: Profile
) -> None:
    build(toy_pipeline(), profile, machine("first", folder.url))
    second = machine("second", folder.url)
    planned = plan(toy_pipeline(), profile, second)
    assert [one.why for one in planned] == [*["shared cache"] * 5, "no entry yet"]
    assert not (second.cache.root / "stages").exists()


def test_a_changed_stage_is_made_and_those_before_it_are_got(
    folder: FolderStore, machine: Machine, profile: Profile
) -> None:
    build(toy_pipeline(), profile, machine("first", folder.url))
    second = build(toy_pipeline(distil=Distil(option=7)), profile, machine("second", folder.url))
    assert ran(second) == ALL[2:]


def test_what_was_got_is_an_entry_of_the_local_cache(folder: FolderStore, machine: Machine, profile: Profile) -> None:
    build(toy_pipeline(), profile, machine("first", folder.url))
    build(toy_pipeline(), profile, machine("second", folder.url))
    shutil.rmtree(folder.root)
    assert ran(build(toy_pipeline(), profile, machine("second", ""))) == []


def test_fresh_makes_everything_again(folder: FolderStore, machine: Machine, profile: Profile) -> None:
    build(toy_pipeline(), profile, machine("first", folder.url))
    again = build(toy_pipeline(), profile, machine("second", folder.url), again=Again(everything=True))
    assert ran(again) == ALL


def test_a_store_that_is_down_is_told_once_and_the_build_goes_on(
    credentials: None,
    machine: Machine,
    profile: Profile,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    here = machine("here", "s3://bucket/shared")
    result = build(toy_pipeline(), profile, here)
    told = [line for line in here.watcher.lines if line.startswith("warning: ")]
    write_record(result, tmp_path / "build.json")
    record = json.loads((tmp_path / "build.json").read_text())["shared_cache"]
    assert ran(result) == ALL
    assert len(told) == 1
    assert told[0].startswith("warning: the shared cache was not used: s3://bucket/shared: no connection")
    assert record == {"url": "s3://bucket/shared", "hits": [], "sent": [], "notes": [told[0].removeprefix("warning: ")]}


def test_a_store_without_conditional_writes_is_read_and_never_written(
    s3_url: str,
    flawed: Callable[[str], str],
    machine: Machine,
    profile: Profile,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", flawed("no-conditions"))
    make_bucket(flawed("no-conditions"))
    here = machine("here", s3_url)
    assert ran(build(toy_pipeline(), profile, here)) == ALL
    assert [line for line in here.watcher.lines if "nothing is put into the shared cache" in line]
    assert list(open_store(s3_url).list("")) == []


def test_a_url_that_is_no_store_is_told_before_anything_runs(machine: Machine, profile: Profile) -> None:
    here = machine("here", "gs://bucket")
    with pytest.raises(ConfigError, match="'gs'"):
        build(toy_pipeline(), profile, here)
    assert not (here.cache.root / "stages").exists()


@pytest.fixture
def plan_words(
    machine: Machine, profile: Profile, folder: FolderStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> list[str]:
    """The words of a plan on an empty machine of what another one has built, beside a variable that is wrong."""
    build(toy_pipeline(), profile, machine("first", folder.url))
    monkeypatch.setattr(config, "load_pipeline", lambda *_: toy_pipeline())
    monkeypatch.setattr(config, "load_profile", lambda *_: profile)
    monkeypatch.setenv("MOBILEKD_SHARED_CACHE", "gs://nowhere")
    return ["plan", "--cache", str(tmp_path / "second"), "--json"]


def test_the_option_names_the_store(
    plan_words: list[str], folder: FolderStore, capfd: pytest.CaptureFixture[str]
) -> None:
    assert cli.run([*plan_words, "--shared-cache", folder.url]) == 0
    planned = json.loads(capfd.readouterr().out)["stages"]
    assert [one["why"] for one in planned] == [*["shared cache"] * 5, "no entry yet"]


def test_without_the_option_the_variable_names_the_store(
    plan_words: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(plan_words) == 2
    assert "gs://nowhere" in capfd.readouterr().err


def test_build_json_says_what_came_and_what_went(
    folder: FolderStore, machine: Machine, profile: Profile, tmp_path: Path
) -> None:
    first = build(toy_pipeline(), profile, machine("first", folder.url))
    second = build(toy_pipeline(), profile, machine("second", folder.url))
    assert first.shared == {"url": folder.url, "hits": [], "sent": SHARED, "notes": []}
    assert second.shared == {"url": folder.url, "hits": SHARED, "sent": [], "notes": []}


def test_a_build_without_a_shared_cache_says_nothing_of_one(
    workshop: Workshop, profile: Profile, tmp_path: Path
) -> None:
    write_record(build(toy_pipeline(), profile, workshop), tmp_path / "build.json")
    assert "shared_cache" not in json.loads((tmp_path / "build.json").read_text())


@pytest.mark.parametrize("damage", [b"", b"other bytes", b"train 0\ndata 1\n"])
def test_a_damaged_file_is_a_miss_with_a_reason_and_is_replaced(
    folder: FolderStore, machine: Machine, profile: Profile, damage: bytes
) -> None:
    build(toy_pipeline(), profile, machine("first", folder.url))
    right = object_of(folder, "train").read_bytes()
    object_of(folder, "train").write_bytes(damage)
    second = build(toy_pipeline(), profile, machine("second", folder.url))
    assert ran(second) == ["train", "measure"]
    assert why(second)["train"].startswith("the entry is damaged: in the shared cache: ")
    assert object_of(folder, "train").read_bytes() == right
    assert ran(build(toy_pipeline(), profile, machine("third", folder.url))) == ["measure"]


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[]", "null", '{"schema": 3}', '{"files": {"a": {}}}', '{"files": []}', "[" * 100_000, _ENDLESS],
)
def test_a_damaged_record_is_a_miss_with_a_reason_and_is_replaced(
    folder: FolderStore, machine: Machine, profile: Profile, text: str
) -> None:
    build(toy_pipeline(), profile, machine("first", folder.url))
    record_of(folder, "train").write_text(text)
    second = build(toy_pipeline(), profile, machine("second", folder.url))
    assert why(second)["train"].startswith("the entry is damaged: in the shared cache: stages/train/")
    assert ran(build(toy_pipeline(), profile, machine("third", folder.url))) == ["measure"]


def test_a_record_with_a_time_that_is_no_number_is_a_miss(
    folder: FolderStore, machine: Machine, profile: Profile
) -> None:
    build(toy_pipeline(), profile, machine("first", folder.url))
    path = record_of(folder, "train")
    path.write_text(json.dumps({**json.loads(path.read_text()), "seconds": float("nan")}))
    assert "in the shared cache" in why(build(toy_pipeline(), profile, machine("second", folder.url)))["train"]


def test_a_record_that_is_too_long_ends_no_build(folder: FolderStore, machine: Machine, profile: Profile) -> None:
    build(toy_pipeline(), profile, machine("first", folder.url))
    record_of(folder, "train").write_bytes(b" " * (MAX_DOCUMENT_BYTES + 1))
    assert "train" in ran(build(toy_pipeline(), profile, machine("second", folder.url)))


@pytest.mark.parametrize("name", ["../../evil", "/etc/evil", "a/../../evil", "a//b", "./a", "a\\b", "c:evil", "", ".."])
def test_a_record_that_names_a_file_outside_is_a_miss_and_nothing_is_written(
    folder: FolderStore, machine: Machine, profile: Profile, name: str, tmp_path: Path
) -> None:
    build(toy_pipeline(), profile, machine("first", folder.url))
    path = record_of(folder, "train")
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "files": {name: record["files"]["content"]}}))
    second = build(toy_pipeline(), profile, machine("second", folder.url))
    assert why(second)["train"].endswith(f"names the file {name!r}")
    assert not list(tmp_path.rglob("evil"))


def test_a_record_with_a_file_that_is_a_folder_too_is_a_miss(
    folder: FolderStore, machine: Machine, profile: Profile
) -> None:
    build(toy_pipeline(), profile, machine("first", folder.url))
    path = record_of(folder, "train")
    record = json.loads(path.read_text())
    files = dict.fromkeys(("content", "content/b"), record["files"]["content"])
    digest = digest_of({name: one["sha256"] for name, one in files.items()})
    path.write_text(json.dumps({**record, "files": files, "digest": digest}))
    second = build(toy_pipeline(), profile, machine("second", folder.url))
    assert "File exists" in why(second)["train"]


def test_a_record_of_another_key_is_a_miss(folder: FolderStore, machine: Machine, profile: Profile) -> None:
    build(toy_pipeline(), profile, machine("first", folder.url))
    shutil.copyfile(record_of(folder, "data"), record_of(folder, "train"))
    second = build(toy_pipeline(), profile, machine("second", folder.url))
    assert why(second)["train"].endswith("is of another key")


def test_what_a_plan_counted_on_and_did_not_get_changes_the_keys_after_it(
    folder: FolderStore, machine: Machine, profile: Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(toy_pipeline(), profile, machine("first", folder.url))
    object_of(folder, "train").write_bytes(b"damaged")
    monkeypatch.setattr(Train, "label", lambda self: "train")
    monkeypatch.setattr(Train, "run", lambda self, inputs, context: (context.out / "content").write_text("other"))
    second = build(toy_pipeline(), profile, machine("second", folder.url))
    assert ran(second) == ["train", *ALL[2:]]
    assert (second.made[2].path / "content").read_text().endswith("other")


def test_of_two_that_made_other_bytes_the_first_wins_and_the_second_says_so(
    folder: FolderStore, machine: Machine, profile: Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(toy_pipeline(), profile, machine("first", folder.url), until="train")
    before = record_of(folder, "train").read_bytes()
    monkeypatch.setattr(Train, "run", lambda self, inputs, context: (context.out / "content").write_text("other"))
    second = machine("second", folder.url)
    build(toy_pipeline(), profile, second, until="train", again=Again(everything=True))
    assert record_of(folder, "train").read_bytes() == before
    told = [line for line in second.watcher.lines if line.startswith("warning: train: other bytes than in the shared")]
    assert len(told) == 1


def test_a_record_holds_the_files_of_the_stage_and_is_canonical(
    store: ObjectStore,
    url: str,
    machine: Machine,
    profile: Profile,
) -> None:
    build(toy_pipeline(), profile, machine("first", url), until="data")
    (head,) = store.list("stages/")
    record = json.loads(read_document(store, head.name)[0])
    assert head.name == f"stages/data/{record['key']}.json"
    assert {name: one["bytes"] for name, one in record["files"].items()} == {"content": 7}


def test_prune_keeps_the_files_of_finished_stages(folder: FolderStore, machine: Machine, profile: Profile) -> None:
    build(toy_pipeline(), profile, machine("first", folder.url))
    assert prune_store(folder, PruneOptions(grace=timedelta(seconds=-60))).names == ()


def test_prune_takes_old_stages_and_then_their_files(folder: FolderStore, machine: Machine, profile: Profile) -> None:
    build(toy_pipeline(), profile, machine("first", folder.url))
    prune_store(folder, PruneOptions(grace=timedelta(seconds=-60), stages=timedelta(seconds=-60)))
    assert list(folder.list("")) == []
    assert ran(build(toy_pipeline(), profile, machine("second", folder.url))) == ALL


@pytest.mark.parametrize(
    "content", [b"", b"[" * 100_000, b" " * (MAX_DOCUMENT_BYTES + 1)], ids=["empty", "deep", "long"]
)
@pytest.mark.parametrize("name", ["stages/.DS_Store", "stages/train/key.json", "stages/a/b/c.json"])
def test_prune_takes_what_is_no_record_of_a_stage_when_it_is_old(
    folder: FolderStore, name: str, content: bytes
) -> None:
    folder.put_new(name, content)
    assert prune_store(folder, PruneOptions()).names == ()
    assert prune_store(folder, PruneOptions(grace=timedelta(seconds=-60))).names == (name,)
