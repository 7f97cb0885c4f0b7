import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mobilekd.artifacts import digest_tree, files_below
from mobilekd.backend import DeployedFacts, Float32
from mobilekd.errors import StageError
from mobilekd.profile import Budget
from mobilekd.release.bundle import inspect

from .workshop import CLASSES, MODELS, OPTIONS, RAN_ON, MatrixRuntime, Workshop


def _manifest(out: Path) -> dict[str, object]:
    document: dict[str, object] = json.loads((out / "bundle/manifest.json").read_text())
    return document


def _stable(out: Path) -> dict[str, bytes]:
    folder = out / "bundle"
    return {str(path): (folder / path).read_bytes() for path in files_below(folder) if path.parts[0] != "measurements"}


def test_equal_evidence_in_two_folders_gives_equal_bytes(tmp_path: Path):
    first, second = (Workshop(tmp_path / name).bundle() for name in ("one", "another_place"))
    assert digest_tree(first) == digest_tree(second)


def test_another_measurement_changes_measurements_alone(tmp_path: Path):
    first = Workshop(tmp_path / "first", latency_seed=0).bundle()
    second = Workshop(tmp_path / "second", latency_seed=1, on_target=True).bundle()
    assert _stable(first) == _stable(second)
    assert digest_tree(first / "bundle/measurements") != digest_tree(second / "bundle/measurements")


def test_bundle_holds_shipped_models_and_no_baseline(built: Path):
    assert sorted(path.name for path in (built / "bundle/models").iterdir()) == [
        "mnn-int8.mnn",
        "onnxruntime-int8.onnx",
        "tensorrt-int8.onnx",
        "tflite-int8.tflite",
    ]


def test_manifest_lists_every_file_outside_measurements_but_itself(built: Path):
    listed = [entry["path"] for entry in _manifest(built)["files"]]  # type: ignore[attr-defined]
    assert listed == sorted(set(_stable(built)) - {"manifest.json"})


def test_folder_and_archive_say_the_same(built: Path):
    assert inspect(built / "bundle") == inspect(built / "bundle.zip")


def test_labels_stand_one_a_line_in_order(built: Path):
    assert tuple((built / "bundle/labels.txt").read_text().splitlines()) == CLASSES


def test_reference_input_is_the_normalised_image(built: Path):
    reference = built / "bundle/reference"
    pixel = np.load(reference / "image.npy")[2, 5, 1] / 255
    assert np.load(reference / "input.npy")[0, 1, 2, 5] == pytest.approx((pixel - 0.456) / 0.224, abs=1e-6)


def test_reference_output_has_one_logit_a_class(built: Path):
    logits = np.load(built / "bundle/reference/mnn-int8.npy")
    assert (logits.shape, logits.dtype) == ((len(CLASSES),), np.float32)


def test_a_model_that_can_not_run_has_no_reference_and_is_listed(built: Path):
    document = inspect(built / "bundle")
    entry = next(model for model in document["models"] if model["deployment"] == "tensorrt-int8")
    assert entry["reference"] is None
    assert entry["build_command"].startswith("trtexec")
    assert "tensorrt-int8: built, not run: no GPU on this host" in document["not_measured"]


def test_latency_of_the_host_is_listed_as_not_measured(built: Path):
    assert f"latency on the target: measured on {RAN_ON}" in inspect(built / "bundle")["not_measured"]


def test_nothing_outside_measurements_names_host_date_or_folder(tmp_path: Path):
    out = Workshop(tmp_path, source="/home/someone/pictures/cats").bundle()
    text = b"".join(_stable(out).values())
    assert [word for word in (b"build-box-7", b"2026-03", b"/home/someone", bytes(tmp_path)) if word in text] == []


def test_source_of_the_data_keeps_its_last_name(tmp_path: Path):
    out = Workshop(tmp_path, source="/home/someone/pictures/cats").bundle()
    assert inspect(out / "bundle")["dataset"]["source"] == "cats"


def test_raw_samples_are_kept(built: Path):
    document = json.loads((built / "bundle/measurements/latency.json").read_text())
    assert [len(one_round) for one_round in document["samples_ms"]["tflite-int8"]] == [100, 100]


def test_a_broken_budget_is_in_the_manifest(tmp_path: Path):
    out = Workshop(tmp_path, budget=Budget(model_bytes=1_000_000)).bundle()
    over = inspect(out / "bundle")["over_budget"]
    assert [sentence.partition(":")[0] for sentence in over] == ["onnxruntime-int8", "mnn-int8"]


def test_a_latency_budget_is_checked_on_the_target(tmp_path: Path):
    out = Workshop(tmp_path, budget=Budget(p50_ms=0.7), on_target=True).bundle()
    (sentence,) = inspect(out / "bundle")["over_budget"]
    assert sentence.startswith("mnn-int8: median latency")


def test_licences_say_what_is_not_stated(built: Path):
    licences = {one["covers"]: one["licence"] for one in inspect(built / "bundle")["licences"]}
    assert licences["the models in this bundle"] == "Apache-2.0"
    assert licences["data set digits"] == "CC-BY-4.0"
    assert licences["tool mnn 1.2.3"] == "not stated"


def test_a_reference_image_past_the_split_is_named(workshop: Workshop):
    with pytest.raises(StageError, match="reference_image is 99, the test split has 12 images"):
        workshop.bundle(options=replace(OPTIONS, reference_image=99))


def test_a_model_with_other_classes_is_named(workshop: Workshop):
    class TwoLogits(MatrixRuntime):
        def logits(self, backend: str, model: Path, facts: DeployedFacts, image: Float32, scratch: Path) -> Float32:
            return super().logits(backend, model, facts, image, scratch)[:2]

    with pytest.raises(StageError, match=r"onnxruntime-int8: gave logits of shape \[2\]"):
        workshop.bundle(TwoLogits())


def test_a_broken_artifact_is_named(workshop: Workshop, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Workshop, "_parity", lambda self: _broken_parity(self.root))
    with pytest.raises(StageError, match=r"parity\.json"):
        workshop.bundle()


def _broken_parity(root: Path) -> Path:
    (root / "parity.json").write_text('{"rows": [{"deployment": 7}], "images": 1}')
    return root


def test_models_without_a_runtime_leave_nothing_proved(tmp_path: Path):
    out = Workshop(tmp_path, models=MODELS[3:4]).bundle()
    assert "Nothing proved" in (out / "bundle/report.html").read_text()
