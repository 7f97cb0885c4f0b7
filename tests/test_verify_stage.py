"""The stage that proves parity, on a real model of ONNX Runtime with a fault planted in its file."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto, numpy_helper

from mobilekd import artifacts, graph
from mobilekd.artifacts import write_json
from mobilekd.backend import Float32
from mobilekd.backends.onnxruntime import Onnxruntime
from mobilekd.errors import StageError, VerificationError
from mobilekd.profile import Deployment, Tolerance
from mobilekd.stage import Context, Inputs
from mobilekd.stages import _drift
from mobilekd.stages.verify import Verify
from mobilekd.training.data import DatasetFacts, open_split, write_facts
from mobilekd.worker import trace_model
from tests.backends import tiny
from tests.toys import Silent

IMAGES = 12
FREE = Tolerance(top1_drop=1.0, agreement=0.0)


class Bench:
    """The artifacts of a small build, with one int8 model whose file may be changed."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.simplified = tiny.write_tiny(root / "simplified")
        self._folder("dataset")
        self._dataset()
        logits = tiny.reference_logits(root / "simplified/qdq.onnx", self._normalized())
        for name in ("teacher", "student", "quantized"):
            write_json(self._folder(name) / "metrics.json", {"top1_test": 0.5})
            np.save(root / name / "test_logits.npy", logits)
        facts = Onnxruntime().convert(self.simplified.for_(Deployment(backend="onnxruntime")))
        self.model = root / "simplified/out" / facts.file
        write_json(self.model.with_name("deployment.json"), facts.to_json())

    def change(self, edit: Callable[[ModelProto], None]) -> None:
        """Plant a fault in the deployed file."""
        model = graph.load(self.model)
        edit(model)
        graph.save(model, self.model)

    def verify(self, stage: Verify) -> dict:
        kinds = (
            (artifacts.Dataset, "dataset"),
            (artifacts.Teacher, "teacher"),
            (artifacts.Student, "student"),
            (artifacts.QatStudent, "quantized"),
            (artifacts.SimplifiedModel, "simplified"),
            (artifacts.DeployedModel, "simplified/out"),
        )
        inputs = Inputs([kind(self.root / name, name) for kind, name in kinds])
        out, scratch = self._folder("made"), self._folder("scratch")
        stage.run(inputs, Context(out=out, scratch=scratch, toolchains=scratch, progress=Silent()))
        return json.loads((out / "parity.json").read_text())

    def _folder(self, name: str) -> Path:
        folder = self.root / name
        folder.mkdir(exist_ok=True)
        return folder

    def _dataset(self) -> None:
        folder, classes = self.root / "dataset", tuple(map(str, range(tiny.CLASSES)))
        splits = {"train": 1, "calibration": 1, "test": IMAGES}
        size, spread = (tiny.SIZE, tiny.SIZE), (0.25, 0.25, 0.25)
        write_facts(DatasetFacts("noise", classes, size, (0.5,) * 3, spread, "none", splits, "", ""), folder)
        pixels = np.random.default_rng(3).integers(0, 256, (IMAGES, *size, 3), dtype=np.uint8)
        np.save(folder / "test_images.npy", pixels)
        np.save(folder / "test_labels.npy", np.arange(IMAGES, dtype=np.int64) % tiny.CLASSES)

    def _normalized(self) -> Float32:
        return open_split(self.root / "dataset", "test").normalized(slice(None))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def scaled(name: str, factor: float) -> Callable[[ModelProto], None]:
    """Return an edit that multiplies one constant."""

    def edit(model: ModelProto) -> None:
        one = next(one for one in model.graph.initializer if one.name == name)
        value = numpy_helper.to_array(one)
        one.CopyFrom(numpy_helper.from_array(np.asarray(value * factor, value.dtype), name))

    return edit


def drifting(report: dict, bound: float = 2.0) -> list[str]:
    """Return the tensors that add more than the bound."""
    return [one["name"] for one in report["drift"][0]["tensors"] if one["own_max_error_steps"] > bound]


def test_a_sound_model_is_walked_tensor_by_tensor_without_drift(bench: Bench) -> None:
    report = bench.verify(Verify())
    (walk,) = report["drift"]
    assert (walk["deployment"], walk["kernels"], report["drift_images"]) == ("onnxruntime-int8", "default", 2)
    assert [one["name"] for one in walk["tensors"]] == [
        "image", "stem_act", "spread_act", "project", "added", "wide_act", "pooled", "flat", "logits"
    ]  # fmt: skip
    assert max(one["own_max_error_steps"] for one in walk["tensors"]) <= 1


def test_a_changed_weight_scale_is_named_and_no_later_tensor(bench: Bench) -> None:
    bench.change(scaled("project.scale", 1.3))
    report = bench.verify(Verify(tolerance=FREE))
    assert drifting(report) == ["project"]
    followers = report["drift"][0]["tensors"][4:]
    assert min(one["max_error_steps"] for one in followers) > 2


def test_a_changed_activation_scale_is_named(bench: Bench) -> None:
    bench.change(scaled("added_scale", 0.5))
    assert drifting(bench.verify(Verify(tolerance=FREE))) == ["added"]


def test_a_changed_weight_is_named(bench: Bench) -> None:
    bench.change(scaled("wide.weight", -1))
    assert drifting(bench.verify(Verify(tolerance=FREE))) == ["wide_act"]


def test_a_broken_tolerance_names_the_first_tensor_that_drifts(bench: Bench) -> None:
    bench.change(scaled("project.scale", 1.5))
    bench.change(scaled("classifier.weight", -1))
    strict = Verify(tolerance=Tolerance(agreement=1.0, top1_drop=0.0))
    with pytest.raises(VerificationError, match=r"onnxruntime-int8 .*first tensor that drifts: 'project' \(Conv\)"):
        bench.verify(strict)
    kept = json.loads((bench.root / "scratch/parity.json").read_text())
    assert drifting(kept) == ["project", "logits"]


def test_an_input_that_the_file_takes_in_float_is_absent(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def with_image(*inputs: object, **options: object) -> dict[str, Float32]:
        return {**trace_model(*inputs, **options), "image": inputs[3]}

    monkeypatch.setattr(_drift, "trace_model", with_image)
    (walk,) = bench.verify(Verify())["drift"]
    assert (walk["absent"], walk["tensors"][0]["name"]) == (["image"], "stem_act")


def test_a_traced_tensor_of_another_shape_is_named(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def transposed(*inputs: object, **options: object) -> dict[str, Float32]:
        traced = trace_model(*inputs, **options)
        return {**traced, "wide_act": traced["wide_act"].transpose(0, 2, 3, 1)}

    monkeypatch.setattr(_drift, "trace_model", transposed)
    with pytest.raises(StageError, match=r"'wide_act' has shape \[1, 8, 8, 16\], trained \[1, 16, 8, 8\]"):
        bench.verify(Verify())


def test_a_trace_without_a_tensor_of_the_table_is_refused(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_drift, "trace_model", lambda *_, **__: {})
    with pytest.raises(StageError, match="none of the 9 tensors"):
        bench.verify(Verify())


def float_project(bench: Bench, reason: str) -> None:
    """Let the runtime report a layer in float, and the table give a reason for it."""
    facts = json.loads(bench.model.with_name("deployment.json").read_text())
    write_json(bench.model.with_name("deployment.json"), {**facts, "float_ops": ["fused project"]})
    path = bench.root / "simplified/quant_table.json"
    table = json.loads(path.read_text())
    write_json(path, {**table, "float_operators": [{"name": "project", "operator": "Conv", "reason": reason}]})


def test_a_layer_that_was_decided_to_stay_float_breaks_no_tolerance_and_is_listed(bench: Bench) -> None:
    float_project(bench, "kept in float: max_top1_drop")
    (row,) = bench.verify(Verify(drift_images=0))["rows"]
    assert (row["float_ops"], row["decided_float_ops"]) == (1, ["fused project"])


def test_a_float_layer_that_nobody_decided_breaks_the_tolerance(bench: Bench) -> None:
    float_project(bench, "reads 'x', which is not rounded")
    with pytest.raises(VerificationError, match=r"1 layers in float \(tolerance\.float_ops 0\)"):
        bench.verify(Verify(drift_images=0))


def test_no_images_no_walk(bench: Bench) -> None:
    report = bench.verify(Verify(drift_images=0))
    assert (report["drift"], report["drift_images"]) == ([], 0)


def test_images_of_the_walk_are_an_option_and_so_part_of_the_key() -> None:
    assert Verify(drift_images=1).options() != Verify(drift_images=2).options()


def test_the_answers_of_the_model_are_kept_for_every_image(bench: Bench) -> None:
    row = bench.verify(Verify())["rows"][0]
    answers = {path.stem: np.load(path) for path in (bench.root / "made/answers").iterdir()}
    assert sorted(answers) == ["labels", "onnxruntime-int8", "quantized", "student", "teacher"]
    assert answers["onnxruntime-int8"].dtype == np.dtype("<u2")
    assert (answers["onnxruntime-int8"] == answers["labels"]).mean() == row["top1_deployed"]
