import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mobilekd.backend import DeployedFacts, Float32
from mobilekd.backends.tflite import Tflite
from mobilekd.cli import run
from mobilekd.errors import ConfigError, StageError, VerificationError
from mobilekd.preprocessing import normalize
from mobilekd.release.app.writing import write_app
from mobilekd.release.embedded import with_sizes
from mobilekd.release.manifest import Manifest
from mobilekd.training.sources import square
from tests.app.conftest import RealWorkshop
from tests.backends.tiny import session_logits
from tests.release.workshop import MODELS, MatrixRuntime, Workshop


class ByPlace(MatrixRuntime):
    """Answers by where the model lies, as no runtime may."""

    def logits(self, backend: str, model: Path, facts: DeployedFacts, image: Float32, scratch: Path) -> Float32:
        return np.full(10, float(model.parent.name == "models"), np.float32)


def python(*words: object) -> subprocess.CompletedProcess[str]:
    """Run a script as on a machine that has no mobilekd."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    return subprocess.run(
        [sys.executable, "-I", *map(str, words)], env=env, capture_output=True, text=True, check=False
    )


def golden(app: Path) -> dict[str, object]:
    document: dict[str, object] = json.loads((app / "golden/golden.json").read_text())
    return document


def test_models_of_the_app_are_those_of_the_bundle_to_the_byte(bundle: Path, app: Path) -> None:
    names = sorted(path.name for path in (app / "models").iterdir())
    assert names == ["mnn-int8.mnn", "onnxruntime-int8.onnx", "tflite-int8.tflite"]
    assert [(app / "models" / name).read_bytes() for name in names] == [
        (bundle / "models" / name).read_bytes() for name in names
    ]


def test_every_model_has_code_in_every_language_of_its_runtime(app: Path) -> None:
    code = [path for path in app.rglob("*") if path.suffix in (".kt", ".swift", ".cpp")]
    assert sorted(path.relative_to(app).as_posix() for path in code) == [
        "android/TfliteInt8.kt",
        "cpp/mnn_int8.cpp",
        "cpp/onnxruntime_int8.cpp",
        "ios/OnnxruntimeInt8.swift",
        "ios/TfliteInt8.swift",
    ]


def test_listing_names_every_other_file_with_its_digest(app: Path) -> None:
    from mobilekd.release.manifest import file_entries

    listed = json.loads((app / "app.json").read_text())
    names = sorted(path.relative_to(app).as_posix() for path in app.rglob("*") if path.is_file())
    names.remove("app.json")
    assert listed["files"] == [entry.model_dump() for entry in file_entries(app, names)]


def test_golden_input_is_what_the_standalone_preprocessing_makes_of_the_golden_image(app: Path) -> None:
    done = python(app / "golden/preprocess.py", "--check")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_changed_golden_input_is_named_by_the_check(app: Path, tmp_path: Path) -> None:
    folder = tmp_path / "golden"
    folder.mkdir()
    for file in (app / "golden").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / "mnn-int8.input.bin").write_bytes(bytes(768))
    done = python(folder / "preprocess.py", "--check")
    assert (done.returncode, done.stderr) == (1, "not equal: mnn-int8\n")


def test_standalone_preprocessing_of_a_photo_is_training_s_to_the_bit(app: Path, tmp_path: Path) -> None:
    photo = Image.fromarray(np.random.default_rng(1).integers(0, 256, (37, 53, 3), dtype=np.uint8))
    photo.save(tmp_path / "photo.png")
    done = python(app / "golden/preprocess.py", tmp_path / "photo.png", tmp_path / "out.bin", "mnn-int8")
    rule = golden(app)["preprocessing"]
    expected = normalize(square(photo, 8)[None], rule["mean"], rule["std"])  # type: ignore[index]
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "out.bin").read_bytes() == expected.tobytes()


def test_golden_logits_are_those_of_the_bundle(bundle: Path, app: Path) -> None:
    pair = golden(app)["pairs"][0]  # type: ignore[index]
    logits = np.frombuffer((app / "golden" / pair["logits"]["file"]).read_bytes(), "<f4")
    assert np.array_equal(logits, np.load(bundle / "reference/onnxruntime-int8.npy"))
    assert pair["top1"] == f"digit {logits.argmax()}"


def test_golden_input_lies_as_the_model_file_wants_it(bundle: Path, app: Path) -> None:
    values = np.load(bundle / "reference/input.npy")
    nhwc = np.frombuffer((app / "golden/tflite-int8.input.bin").read_bytes(), "<f4").reshape(1, 8, 8, 3)
    assert np.array_equal(nhwc, values.transpose(0, 2, 3, 1))


def test_the_tflite_of_a_bundle_has_metadata_and_answers_as_its_reference_says(
    bundle: Path, manifest: Manifest
) -> None:
    entry = next(model for model in manifest.models if model.options.backend == "tflite")
    session = Tflite().open(bundle / entry.file, entry.facts(), kernels="xnnpack", threads=1)
    logits = session_logits(session, np.load(bundle / "reference/input.npy"))
    assert b"TFLITE_METADATA" in (bundle / entry.file).read_bytes()
    assert np.array_equal(logits[0], np.load(bundle / "reference/tflite-int8.npy"))


def test_a_backend_describes_a_shipped_tflite_as_the_manifest_does(bundle: Path, manifest: Manifest) -> None:
    entry = next(model for model in manifest.models if model.options.backend == "tflite")
    described = Tflite().describe(bundle / entry.file)
    assert (described.input, described.output, described.int8_tensors) == (
        entry.input,
        entry.output,
        entry.int8_tensors,
    )


def test_a_model_that_answers_otherwise_with_metadata_is_not_packed(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="tflite-int8: answers the reference image otherwise since it has metadata"):
        RealWorkshop(tmp_path, models=MODELS[1:2]).real_bundle(ByPlace())


def test_sizes_in_a_bundle_are_those_of_the_files_that_ship(tmp_path: Path) -> None:
    evidence = Workshop(tmp_path).evidence()
    sizes = {row["deployment"]: row["bytes"] for row in with_sizes(evidence, {"tflite-int8": 800}).parity_rows}
    assert (sizes["tflite-int8"], sizes["mnn-int8"]) == (987_654 + 800, 1_043_212)


def test_a_directory_that_is_there_is_not_touched(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(ConfigError, match="is there already"):
        write_app(bundle, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_place_below_a_file_is_a_mistake_that_is_named(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ConfigError, match=r"--out .*file/app can't be written"):
        write_app(bundle, tmp_path / "file/app")


def test_a_changed_bundle_is_refused_and_nothing_is_left(bundle: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(bundle, tmp_path / "bundle")
    (tmp_path / "bundle/labels.txt").write_text("other\n")
    with pytest.raises(VerificationError, match=r"labels\.txt"):
        write_app(tmp_path / "bundle", tmp_path / "app")
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


@pytest.mark.parametrize("name", ["5digits", "a-b", "a b", "é", 'x"y', "a$b"])
def test_a_pack_name_that_google_play_refuses_is_refused(bundle: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="is not a name of an AI pack"):
        write_app(bundle, tmp_path / "app", pack_name=name)


def test_a_backend_without_a_model_names_those_that_have_one(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        write_app(bundle, tmp_path / "app", backend="tensorrt")
    assert caught.value.hint == "it has tflite, onnxruntime, mnn"
    assert list(tmp_path.iterdir()) == []


def test_a_resize_rule_that_no_code_is_written_for_is_quoted(tmp_path: Path) -> None:
    bundle = Workshop(tmp_path / "work", resize="nearest to 8 x 8").bundle() / "bundle"
    with pytest.raises(ConfigError, match="'nearest to 8 x 8' to 8 x 8"):
        write_app(bundle, tmp_path / "app")


def test_the_command_prints_one_object_with_the_files_of_each_model(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = run(["bundle", "app", str(bundle), "--out", str(tmp_path / "app"), "--pack-name", "numbers", "--json"])
    document = json.loads(capsys.readouterr().out)
    assert (code, document["pack"], document["variants"]) == (0, "numbers", [["", "tflite-int8"]])
    assert document["code"]["mnn-int8"] == ["cpp/mnn_int8.cpp"]
    assert (tmp_path / "app/android/numbers/src/main/assets/model/model.tflite").is_file()


def test_the_command_says_what_was_not_run(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(["bundle", "app", str(bundle), "--out", str(tmp_path / "app")])
    assert "layout checked, Gradle not run" in capsys.readouterr().out
