import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobilekd.artifacts import digest_file, files_below
from mobilekd.backend import DeployedFacts, Float32
from mobilekd.errors import ConfigError, VerificationError
from mobilekd.release.archive import write_archive
from mobilekd.release.bundle import inspect, unpack_models, verify
from mobilekd.release.files import open_bundle
from mobilekd.release.manifest import DatasetEntry
from mobilekd.release.recorded import recorded_drift, recorded_parity
from mobilekd.show_bundle import show_bundle

from .workshop import MODELS, MatrixRuntime, Workshop

RUNTIME = MatrixRuntime()


class MustNotRun(MatrixRuntime):
    def logits(self, backend: str, model: Path, facts: DeployedFacts, image: Float32, scratch: Path) -> Float32:
        raise AssertionError(f"{backend}: a model of a broken bundle was run: {model}, {facts}, {image}, {scratch}")


@pytest.fixture
def folder(built: Path, tmp_path: Path) -> Path:
    """A copy of the bundle folder that a test may break."""
    return shutil.copytree(built / "bundle", tmp_path / "bundle")


@pytest.mark.parametrize("form", ["bundle", "bundle.zip"])
def test_an_untouched_bundle_verifies(built: Path, form: str):
    report = verify(built / form, RUNTIME)
    assert len(report.files) == 27
    assert [(one.deployment, one.max_error_steps, one.ok) for one in report.reruns] == [
        ("onnxruntime-int8", 0.0, True),
        ("tflite-int8", 0.0, True),
        ("mnn-int8", 0.0, True),
    ]
    assert report.not_run == (("tensorrt-int8", "built, not run: no GPU on this host"),)


def test_the_digest_is_that_of_the_manifest(built: Path):
    assert verify(built / "bundle", RUNTIME).digest == inspect(built / "bundle.zip")["digest"]


def test_a_report_of_verification_is_json(built: Path):
    assert json.loads(json.dumps(verify(built / "bundle", RUNTIME).to_json()))["not_run"][0]["deployment"] == (
        "tensorrt-int8"
    )


@given(data=st.data(), flip=st.integers(1, 255))
@settings(max_examples=60)
def test_a_flipped_byte_in_the_folder_is_refused_and_named(
    data: st.DataObject, flip: int, built: Path, tmp_path_factory: pytest.TempPathFactory
):
    folder = shutil.copytree(built / "bundle", tmp_path_factory.mktemp("flip") / "bundle")
    name = data.draw(st.sampled_from([path.as_posix() for path in files_below(folder)]))
    content = bytearray((folder / name).read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= flip
    (folder / name).write_bytes(content)
    with pytest.raises(VerificationError) as caught:
        verify(folder, MustNotRun())
    assert f"{folder}: {name}: " in caught.value.message


@given(position=st.integers(0), flip=st.integers(1, 255))
@settings(max_examples=60)
def test_a_flipped_byte_in_the_archive_is_refused(
    position: int, flip: int, built: Path, tmp_path_factory: pytest.TempPathFactory
):
    content = bytearray((built / "bundle.zip").read_bytes())
    content[position % len(content)] ^= flip
    broken = tmp_path_factory.mktemp("flip") / "bundle.zip"
    broken.write_bytes(content)
    with pytest.raises(VerificationError):
        verify(broken, MustNotRun())


ALL_FILES = (
    "LICENSES.txt",
    "labels.txt",
    "manifest.json",
    "measurements/latency.json",
    "measurements/manifest.json",
    "measurements/report.html",
    "models/mnn-int8.mnn",
    "models/tensorrt-int8.onnx",
    "provenance.json",
    "quant_table.json",
    "reference/image.npy",
    "reference/input.npy",
    "reference/mnn-int8.npy",
    "report.html",
    "sbom.cdx.json",
)


@pytest.mark.parametrize("name", ALL_FILES)
def test_a_missing_file_is_named(folder: Path, name: str):
    (folder / name).unlink()
    with pytest.raises(VerificationError, match=f"{name}: missing"):
        verify(folder, MustNotRun())


@pytest.mark.parametrize("name", ["extra.txt", "models/extra.onnx", "measurements/extra.json"])
def test_an_extra_file_is_named(folder: Path, name: str):
    (folder / name).write_text("x")
    with pytest.raises(VerificationError, match=f"{name}: not listed"):
        verify(folder, MustNotRun())


def test_an_extra_file_in_a_well_formed_archive_is_named(folder: Path, tmp_path: Path):
    (folder / "extra.txt").write_text("x")
    write_archive(folder, tmp_path / "x.zip")
    with pytest.raises(VerificationError, match=r"extra\.txt: not listed"):
        verify(tmp_path / "x.zip", MustNotRun())


def test_measurements_of_another_bundle_are_refused(folder: Path, tmp_path: Path):
    other = Workshop(tmp_path / "other", models=MODELS[:2]).bundle()
    shutil.rmtree(folder / "measurements")
    shutil.copytree(other / "bundle/measurements", folder / "measurements")
    with pytest.raises(VerificationError, match=r"manifest\.json: its digest is"):
        verify(folder, MustNotRun())


def test_nothing_there_is_a_config_error(tmp_path: Path):
    with pytest.raises(ConfigError, match="no such bundle"):
        verify(tmp_path / "absent.zip", RUNTIME)


def test_a_file_that_is_no_archive_is_refused(tmp_path: Path):
    (tmp_path / "x.zip").write_text("hello")
    with pytest.raises(VerificationError, match="no entry of a bundle at the start"):
        inspect(tmp_path / "x.zip")


def test_a_folder_that_is_no_bundle_is_refused(tmp_path: Path):
    (tmp_path / "a.txt").write_text("hello")
    with pytest.raises(VerificationError, match=r"a folder without manifest\.json, so no bundle"):
        inspect(tmp_path)


def test_a_folder_that_holds_archives_is_told_with_them(tmp_path: Path):
    (tmp_path / "x.mobilekd.zip").write_text("hello")
    with pytest.raises(VerificationError) as told:
        inspect(tmp_path)
    assert told.value.hint == f"it has {tmp_path / 'x.mobilekd.zip'}"


def test_a_model_that_answers_otherwise_is_named(built: Path):
    class Drifting(MatrixRuntime):
        def logits(self, backend: str, model: Path, facts: DeployedFacts, image: Float32, scratch: Path) -> Float32:
            return super().logits(backend, model, facts, image, scratch) + np.float32(0.25 * (backend == "mnn"))

    with pytest.raises(VerificationError, match="mnn-int8: logits are 2 steps off, allowed 1") as caught:
        verify(built / "bundle.zip", Drifting())
    assert "tflite" not in caught.value.message


def test_logits_that_are_no_numbers_do_not_pass(built: Path):
    class Broken(MatrixRuntime):
        def logits(self, backend: str, model: Path, facts: DeployedFacts, image: Float32, scratch: Path) -> Float32:
            return super().logits(backend, model, facts, image, scratch) * np.float32("nan")

    with pytest.raises(VerificationError, match="inf steps off"):
        verify(built / "bundle", Broken())


def test_a_backend_that_is_not_here_is_not_run_and_not_passed(built: Path):
    report = verify(built / "bundle", MatrixRuntime(absent="mnn"))
    assert ("mnn-int8", "not installed") in report.not_run
    assert "mnn-int8" not in [one.deployment for one in report.reruns]


def test_recorded_parity_is_the_table_with_the_teacher_beside(built: Path):
    rows = recorded_parity(built / "bundle.zip")
    assert len(rows) == 9
    assert rows[0]["top1_teacher"] == 0.9944


def test_recorded_drift_is_the_walk_through_every_model_that_ran(built: Path):
    record = recorded_drift(built / "bundle.zip")
    assert [walk.kernels for walk in record.walks] == ["default", "xnnpack", "builtin", "reference", "default"]
    assert (record.images, len(record.walks[0].tensors), record.walks[0].absent) == (2, 37, ("flat",))
    assert record.not_walked == ("tensorrt-int8",)


def test_a_bundle_without_a_walk_names_the_command_that_makes_one(tmp_path: Path):
    bundle = Workshop(tmp_path, drift_images=0).bundle() / "bundle.zip"
    with pytest.raises(ConfigError, match="no comparison tensor by tensor") as caught:
        recorded_drift(bundle)
    assert caught.value.hint == (
        "mobilekd build --profile android-arm64 --pipeline quickstart --set verify.drift_images=2"
    )


def test_a_changed_walk_is_refused(folder: Path):
    (folder / "drift.json").write_text((folder / "drift.json").read_text() + " ")
    with pytest.raises(VerificationError, match=r"drift\.json: was changed"):
        recorded_drift(folder)


def test_a_deeply_nested_manifest_is_refused(folder: Path):
    (folder / "measurements/manifest.json").write_text("[" * 1_000_000)
    with pytest.raises(VerificationError, match=r"measurements/manifest\.json"):
        inspect(folder)


def test_a_huge_manifest_is_refused(folder: Path):
    (folder / "measurements/manifest.json").write_bytes(b" " * (17 << 20))
    with pytest.raises(VerificationError, match="more than 2097152 bytes"):
        inspect(folder)


def test_models_are_unpacked_with_their_facts_and_accuracy(built: Path, tmp_path: Path):
    unpacked = unpack_models(built / "bundle.zip", tmp_path)
    models, image = unpacked.models, np.load(unpacked.input)
    logits = [RUNTIME.logits("", one.model, one.facts, image, tmp_path) for one in models]
    assert [one.name for one in models] == ["onnxruntime-int8", "tflite-int8", "mnn-int8", "tensorrt-int8"]
    assert np.array_equal(logits[1], np.load(built / "bundle/reference/tflite-int8.npy"))
    assert (unpacked.top1["tflite-int8"], unpacked.top1["tensorrt-int8"]) == (0.9861, None)


def test_a_bundle_names_the_files_of_its_test_split_by_digest(tmp_path: Path):
    workshop = Workshop(tmp_path)
    unpacked = unpack_models(workshop.bundle() / "bundle.zip", tmp_path)
    assert unpacked.dataset.test_files == {
        name: digest_file(tmp_path / "dataset" / name) for name in ("test_images.npy", "test_labels.npy")
    }


def test_a_manifest_without_the_files_of_its_test_split_is_read():
    assert DatasetEntry(name="digits", source="", splits={}).test_files == {}


def test_models_of_a_changed_bundle_are_not_unpacked(folder: Path, tmp_path: Path):
    (folder / "labels.txt").write_text("cat\n")
    (tmp_path / "out").mkdir()
    with pytest.raises(VerificationError, match=r"labels\.txt"):
        unpack_models(folder, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_the_folder_of_a_build_is_no_bundle_and_names_the_one_in_it(built: Path):
    with pytest.raises(ConfigError, match="the folder of a build, not a bundle") as refusal:
        open_bundle(built)
    assert str(built / "bundle") in refusal.value.hint


def test_what_a_terminal_would_obey_is_written_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    bundle = Workshop(tmp_path, note="fine\x1b[2J").bundle()
    show_bundle(inspect(bundle / "bundle"), as_json=False)
    assert "\x1b" not in capsys.readouterr().out
