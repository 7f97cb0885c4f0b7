"""`mobilekd bench`, from its words to its JSON, on the real emulator and on this host."""

import json
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import mobilekd
from mobilekd import cli
from mobilekd.bench import _subject
from mobilekd.cache import Cache
from mobilekd.config import load_profile
from mobilekd.keys import key_of
from mobilekd.release.reference import HOST
from tests.benchmarking import small
from tests.device.models import Model
from tests.release.workshop import IMAGES
from tests.release.workshop import Model as Entry

Row = dict[str, Any]
Call = Callable[..., Row]
KEYS = {
    "schema", "profile", "mode", "host", "ran_on", "on_target", "place", "why", "measured", "device", "states",
    "worries", "samples_ms", "images_from", "images_note", "models", "comparison",
}  # fmt: skip
SHIPPED = json.loads((Path(mobilekd.__file__).parent / "bench.schema.json").read_text(encoding="utf-8"))
QUICK = ("--set", "profile.benchmark.timed_runs=10")


@pytest.fixture(scope="module")
def bundle(tiny: Mapping[str, Model], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pack the tiny network for two runtimes; its data set is beside it."""
    root = tmp_path_factory.mktemp("bundle")
    entries = (Entry("onnxruntime", "int8", ".onnx"), Entry("mnn", "int8", ".mnn"))
    workshop = small.RealWorkshop(root, models=entries, drift_images=0, tiny=tiny)
    return workshop.bundle(HOST) / "bundle.zip"  # type: ignore[arg-type]


@pytest.fixture
def call(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Call:
    """Run `mobilekd bench --json` with an empty cache of its own; return its document."""

    def run(*words: object) -> Row:
        code = cli.run(["bench", "--json", "--cache", str(tmp_path / "cache"), *map(str, words)])
        out, err = capfd.readouterr()
        assert code == 0, err
        document: Row = json.loads(out)
        return document

    return run


@pytest.fixture
def emulated(call: Call, on_emulator: Path) -> Call:
    return lambda *words: call(*words, "--on", "emulator")


@pytest.fixture
def timed(call: Call, on_host: Path) -> Call:
    return lambda *words: call(*words, *QUICK, "--on", "host")


def store_dataset(folder: Path, root: Path) -> None:
    """Put a data set into a cache as its stage would."""
    cache, parts = Cache(root), {"stage": "data"}
    key = key_of(parts)
    with cache.workspace("data", key) as (artifact, _):
        shutil.copytree(folder, artifact, dirs_exist_ok=True)
        cache.store("data", parts, key, 1.0)


def test_a_bundle_without_its_data_answers_the_reference_image(emulated: Call, bundle: Path) -> None:
    document = emulated(bundle)
    assert document.keys() == KEYS
    assert (document["schema"], document["images_from"]) == ("mobilekd.bench/1", "reference image")
    assert [(one["deployment"], one["on_device"]["images"], one["top1"]) for one in document["models"]] == [
        ("onnxruntime-int8", 1, 0.9833),
        ("mnn-int8", 1, 0.9833),
    ]


def test_a_bundle_answers_the_test_split_that_its_cache_has(emulated: Call, bundle: Path, tmp_path: Path) -> None:
    store_dataset(bundle.parents[1] / "dataset", tmp_path / "cache")
    document = emulated(bundle)
    assert document["images_from"] == "test split of digits"
    found = document["models"][0]["on_device"]
    assert (found["images"], found["top1"]) == (IMAGES, found["host_top1"])


def test_a_test_split_with_other_bytes_is_not_taken(emulated: Call, bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(bundle.parents[1] / "dataset", tmp_path / "other")
    (tmp_path / "other" / "test_labels.npy").write_bytes(b"other")
    store_dataset(tmp_path / "other", tmp_path / "cache")
    assert emulated(f"{bundle}:mnn-int8")["images_from"] == "reference image"


def test_images_are_as_many_as_asked_for(emulated: Call, bundle: Path, tmp_path: Path) -> None:
    store_dataset(bundle.parents[1] / "dataset", tmp_path / "cache")
    document = emulated(f"{bundle}:mnn-int8", "--images", 5)
    assert [(one["deployment"], one["on_device"]["images"]) for one in document["models"]] == [("mnn-int8", 5)]


def test_a_lone_file_is_fed_noise(emulated: Call, lone: Mapping[str, Path]) -> None:
    document = emulated(lone["tflite"])
    (model,) = document["models"]
    assert (document["images_from"], document["comparison"], model["top1"]) == ("noise", None, None)
    assert (model["on_device"]["exact_images"], model["on_device"]["top1"]) == (1, None)


def test_a_model_takes_as_many_instructions_as_itself(emulated: Call, lone: Mapping[str, Path]) -> None:
    found = emulated(lone["tflite"], lone["tflite"])["comparison"]
    assert (found["verdict"], found["ratio"]) == ("equal", 1.0)


def test_two_runtimes_of_one_network_are_compared_by_their_counts(
    emulated: Call, lone: Mapping[str, Path], bundle: Path
) -> None:
    document = emulated(lone["tflite"], f"{bundle}:onnxruntime-int8")
    totals = [one["guest_instructions"]["total"] for one in document["models"]]
    assert document["comparison"]["ratio"] == totals[1] / totals[0]
    assert document["comparison"]["verdict"] == "more"
    assert [one["deployment"][:2] for one in document["models"]] == ["A:", "B:"]


def test_two_models_of_one_bundle_are_unpacked_by_one_reading_of_it(bundle: Path, tmp_path: Path) -> None:
    named = [Path(f"{bundle}:{name}") for name in ("onnxruntime-int8", "mnn-int8")]
    subject = _subject(named, load_profile("android-arm64"), Cache(tmp_path / "cache"), tmp_path)
    assert [one.name for one in subject.models] == ["A: onnxruntime-int8", "B: mnn-int8"]
    assert len({one.model.parents[1] for one in subject.models}) == 1


def test_a_bundle_with_many_images_is_compared_with_a_lone_file(
    emulated: Call, lone: Mapping[str, Path], bundle: Path, tmp_path: Path
) -> None:
    store_dataset(bundle.parents[1] / "dataset", tmp_path / "cache")
    document = emulated(f"{bundle}:onnxruntime-int8", lone["tflite"], "--images", 3)
    assert [one["on_device"]["images"] for one in document["models"]] == [3, 3]
    assert document["comparison"]["verdict"] == "fewer"


def test_the_heavier_model_is_the_slower_one(timed: Call, lone: Mapping[str, Path]) -> None:
    document = timed(lone["onnx"], lone["heavy"])
    light, heavy = (one["p50_ms"] for one in document["models"])
    found = document["comparison"]
    assert (found["verdict"], found["ratio"] > 5, heavy > 5 * light) == ("slower", True, True)  # some hundred
    assert found["told"].startswith("slower: B: heavy.onnx takes ")
    assert document["samples_ms"].keys() == {"A: onnxruntime-int8.onnx", "B: heavy.onnx"}


def test_a_model_that_dies_ends_in_5_and_leaves_nothing(
    lone: Mapping[str, Path], on_host: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["bench", str(lone["dying"]), "--on", "host", *QUICK, "--json"]) == 5
    out, err = capfd.readouterr()
    assert (out, "Traceback" in err) == ("", False)
    assert "dying.onnx" in err
    assert "the run is incomplete" in err
    assert list((on_host / "local").glob("work-*")) == []


def faults(document: Mapping[str, object]) -> list[jsonschema.ValidationError]:
    return list(jsonschema.Draft202012Validator(SHIPPED).iter_errors(document))


def test_counts_are_valid_by_the_schema_that_is_shipped(emulated: Call, bundle: Path, tmp_path: Path) -> None:
    store_dataset(bundle.parents[1] / "dataset", tmp_path / "cache")
    named = f"{bundle}:mnn-int8"
    assert faults(emulated(named, named, "--images", 2, "--layers")) == []


def test_times_are_valid_by_the_schema_that_is_shipped(timed: Call, lone: Mapping[str, Path]) -> None:
    assert faults(timed(lone["tflite"], lone["tflite"])) == []


def test_a_document_that_is_not_by_the_schema_is_seen(timed: Call, lone: Mapping[str, Path]) -> None:
    document = timed(lone["tflite"])
    document["models"][0]["p50_ms"] = "fast"
    assert [list(fault.path) for fault in faults(document)] == [["models", 0, "p50_ms"]]


def test_the_schema_requires_every_key() -> None:
    assert set(SHIPPED["required"]) == KEYS


def test_the_table_says_where_and_how_exact(
    lone: Mapping[str, Path], on_emulator: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["bench", str(lone["tflite"]), "--on", "emulator"]) == 0
    out = capfd.readouterr().out
    assert re.search(r"model\.tflite +0\.\d\d M instr\. +identical +bit-exact, 1 image +- +emulated cortex-a76", out)


def test_models_of_other_inputs_are_not_compared(
    lone: Mapping[str, Path], on_host: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["bench", str(lone["onnx"]), str(lone["wide"]), "--on", "host"]) == 2
    assert "takes [3, 8, 8], " in capfd.readouterr().err
