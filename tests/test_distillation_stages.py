"""The stages that train: their options, and what they leave for tiny networks."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from pydantic import ValidationError

from mobilekd import artifacts
from mobilekd.artifacts import Artifact, Baseline, Dataset, MadeBy, Student, digest_tree
from mobilekd.errors import StageError
from mobilekd.stage import Context, Inputs, Stage
from mobilekd.stages._teachers import judged
from mobilekd.stages.alone import Alone
from mobilekd.stages.assistant import Assistant
from mobilekd.stages.distill import Distill
from mobilekd.stages.quantize import Quantize
from mobilekd.stages.teacher import Teacher
from mobilekd.training.data import SPLITS, DatasetFacts, open_split, write_facts
from mobilekd.training.objective import TeacherNetwork
from tests.toys import Silent
from tests.training.nets import Says, narrow, wide

NARROW, WIDE = "python:tests.training.nets:narrow", "python:tests.training.nets:wide"
FEW = {"epochs": 1, "batch_size": 8, "threads": 1, "shift_pixels": 1}
EXTRA = {"network": WIDE, "checkpoint": "x.pt"}


def distill(**options: object) -> Distill:
    return Distill.model_validate_json(json.dumps({"network": NARROW, **FEW, **options}))


REFUSED = [
    ({"method": "kdd"}, "there is no method 'kdd'; did you mean 'kd'"),
    ({"method": ["kd", "kd"]}, "named twice"),
    ({"method": []}, "no method is named"),
    ({"method_options": {"kd": {"temperatur": 2.0}}}, "no option 'temperatur'; did you mean 'temperature'"),
    ({"method_options": {"kd": {"temperature": -2.0}}}, "temperature is -2.0"),
    ({"method_options": {"dk": {}}}, "method_options has 'dk', which is not distilled; known: kd"),
    ({"soft_weight": 1.5}, "less than or equal to 1"),
    ({"soft_weight": 0.0, "soft_first": 0.5}, "soft_first needs a method on logits"),
    ({"student_stages": ["a"], "teacher_stages": ["a", "b"]}, "name 1 and 2 modules"),
    ({"combine": "confidence"}, "with one teacher"),
    ({"extra_teachers": [{**EXTRA, "weight": 2.0}]}, "counts with combine = 'weighted' only"),
    ({"extra_teachers": [{**EXTRA, "network": "timm:resnet19"}]}, "timm has no network 'resnet19'"),
    ({"layers": [{"student": "a", "teacher": "b", "method": "kd"}]}, "does not compare feature maps alone"),
    ({"generations": 0}, "greater than or equal to 1"),
    ({"keep_features": True}, "keep_features needs views above 0"),
]


@pytest.mark.parametrize(("options", "told"), REFUSED)
def test_options_that_do_not_hold_are_refused_with_the_choices(options, told) -> None:
    with pytest.raises(ValidationError) as caught:
        distill(**options)
    assert told in str(caught.value)


ACCEPTED = [
    ({}, "0.1 hard + 0.9 kd(temperature 4)"),
    ({"temperature": 2, "soft_weight": 0.5}, "0.5 hard + 0.5 kd(temperature 2)"),
    ({"temperature": 2.0, "method_options": {"kd": {"temperature": 3}}}, "0.1 hard + 0.9 kd(temperature 3)"),
    ({"method": [], "soft_weight": 0.3}, "0.7 hard + 0.3 kd(temperature 4)"),
    (
        {"soft_first": 0.2, "method_options": {"kd": {"weight": 2.0, "decay": "linear"}}},
        "0.1 hard + 1.8 kd(temperature 4, decay linear); the first 20% of the run on logits alone",
    ),
]


@pytest.mark.parametrize(("options", "described"), ACCEPTED)
def test_options_mean_one_objective(options, described) -> None:
    assert distill(**options).strategy().describe() == described


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"precision": "bf16"}, "trained in fp32"),
        ({"compile": True}, "can't be compiled again"),
        ({"device": "cuda"}, "trained on the CPU"),
    ],
)
def test_quantization_is_trained_in_fp32_without_a_compiler(options, told) -> None:
    with pytest.raises(ValidationError, match=told):
        Quantize(**options)


WITHOUT_CUDA = pytest.mark.skipif(torch.cuda.is_available(), reason="this host has a CUDA device")


@WITHOUT_CUDA
def test_cuda_that_is_not_there_is_told_before_anything_runs() -> None:
    (told,) = distill(device="cuda").missing()
    assert told == "device is 'cuda', and torch finds no CUDA device; set device = 'cpu' or 'auto'"


@pytest.mark.parametrize("device", ["cpu", pytest.param("auto", marks=WITHOUT_CUDA)])
def test_fp16_without_cuda_is_told_before_anything_runs(device: str) -> None:
    (told,) = distill(device=device, precision="fp16").missing()
    assert told == "precision is 'fp16' on cpu; set precision = 'bf16', or use a CUDA device"


def test_the_default_recipe_is_that_of_before() -> None:
    recipe = distill().recipe()
    assert (recipe.precision, recipe.compile, recipe.accumulation, recipe.views) == ("fp32", False, 1, 0)
    assert (recipe.schedule, recipe.ema, recipe.patience) == ("cosine", 0.0, 0)


def test_extra_teachers_enter_the_key(tmp_path) -> None:
    (tmp_path / "x.pt").write_bytes(b"weights")
    stage = distill(extra_teachers=[{"network": WIDE, "checkpoint": str(tmp_path / "x.pt")}])
    assert "extra_teachers[0].checkpoint" in stage.sources(lambda path: path.name)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("stages")


@pytest.fixture(scope="module")
def data(folder) -> Dataset:
    """24 images of 8 x 8 pixels in each split; a class is one bright channel."""
    rng = np.random.default_rng(0)
    out = folder / "data"
    out.mkdir()
    for split in SPLITS:
        labels = np.arange(24) % 3
        images = rng.integers(0, 128, (24, 8, 8, 3))
        images[np.arange(24), :, :, labels] += 100
        np.save(out / f"{split}_images.npy", images.astype(np.uint8))
        np.save(out / f"{split}_labels.npy", labels.astype(np.int64))
    counts = dict.fromkeys(SPLITS, 24)
    write_facts(DatasetFacts("toy", ("r", "g", "b"), (8, 8), (0.5,) * 3, (0.25,) * 3, "none", counts, "", ""), out)
    return Dataset(out, digest_tree(out))


def made(stage: Stage, folder: Path, *before: Artifact) -> tuple[Artifact, Silent]:
    out, scratch, silent = folder / "out", folder / "scratch", Silent()
    out.mkdir(parents=True)
    scratch.mkdir()
    stage.run(Inputs(before), Context(out, scratch, folder, silent, soft_labels=folder / "soft-labels"))
    return stage.makes(out, digest_tree(out)), silent


@pytest.fixture(scope="module")
def teacher(folder, data) -> artifacts.Teacher:
    artifact, _ = made(Teacher(network=WIDE, **FEW), folder / "teacher", data)
    assert isinstance(artifact, artifacts.Teacher)
    return artifact


def facts(artifact: Artifact) -> dict:
    return json.loads((artifact.path / "network.json").read_text())


def test_a_student_alone_is_a_baseline_and_no_student(folder, data) -> None:
    artifact, _ = made(Alone(network=NARROW, **FEW), folder / "alone", data)
    assert (type(artifact), isinstance(artifact, Student)) == (Baseline, False)
    assert "top1_test" in json.loads((artifact.path / "metrics.json").read_text())


def test_a_student_says_its_objective_and_keeps_it(folder, data, teacher) -> None:
    artifact, silent = made(distill(), folder / "student", data, teacher)
    assert silent.lines[0] == "distill: 0.1 hard + 0.9 kd(temperature 4); the teacher runs in every step"
    known = facts(artifact)
    assert (known["objective"], known["method"]) == ("0.1 hard + 0.9 kd(temperature 4)", ["kd"])
    assert 0 <= known["teacher_top1"] <= 1


def test_an_assistant_is_the_newest_teacher(folder, data, teacher) -> None:
    options = {**FEW, "network": WIDE}
    assistant, _ = made(Assistant(**options), folder / "assistant", data, teacher)
    assert Inputs((teacher, assistant)).newest(artifacts.Teacher) is assistant


def test_born_again_generations_have_a_checkpoint_each_and_the_last_one_is_kept(folder, data, teacher) -> None:
    artifact, _ = made(distill(generations=2), folder / "born", data, teacher)
    states = [
        torch.load(folder / f"born/scratch/checkpoint-distill-{one}-of-2.pt", weights_only=True)["network"]
        for one in (1, 2)
    ]
    kept = safetensors.torch.load_file(artifact.path / "model.safetensors")
    torch.testing.assert_close(kept["linear.weight"], states[1]["linear.weight"])
    assert not torch.equal(states[0]["linear.weight"], states[1]["linear.weight"])
    assert len(facts(artifact)["top1_of_generations"]) == 2


def test_the_first_generation_is_the_student_of_one_generation(folder, data, teacher) -> None:
    made(distill(), folder / "single", data, teacher)
    made(distill(generations=2), folder / "double", data, teacher)
    first, second = (
        torch.load(folder / f"{name}.pt", weights_only=True)["network"]
        for name in ("single/scratch/checkpoint-distill", "double/scratch/checkpoint-distill-1-of-2")
    )
    torch.testing.assert_close(second, first, rtol=0, atol=0)


def test_two_teachers_train_one_student(folder, data, teacher, tmp_path) -> None:
    torch.save(wide().state_dict(), tmp_path / "second.pt")
    extra = {"network": WIDE, "checkpoint": str(tmp_path / "second.pt")}
    stage = distill(extra_teachers=[extra], combine="confidence")
    artifact, _ = made(stage, folder / "two", data, teacher)
    known = facts(artifact)
    assert (known["extra_teachers"], known["teacher"]) == ([WIDE], WIDE)


def test_an_extra_teacher_that_is_no_better_than_a_guess_is_told_with_what_to_look_at(
    folder, data, teacher, tmp_path
) -> None:
    state = {name: torch.zeros_like(value) for name, value in narrow().state_dict().items()}
    torch.save(state, tmp_path / "guesses.pt")  # the first class for every image, a third of them
    stage = distill(extra_teachers=[{"network": NARROW, "checkpoint": str(tmp_path / "guesses.pt")}])
    artifact, silent = made(stage, folder / "guess", data, teacher)
    assert facts(artifact)["extra_teachers_top1"] == pytest.approx([1 / 3])
    (told,) = [line for line in silent.lines if f"warning: teacher {NARROW} has 33.33%" in line]
    assert "order of its classes" in told


def test_the_worth_of_teachers_together_is_that_of_their_combined_logits(data) -> None:
    first, second = TeacherNetwork(Says(4.0, 0.0, 0.0)), TeacherNetwork(Says(0.0, 6.0, 0.0))
    validation = open_split(data.path, "calibration")
    few = replace(validation, images=validation.images[:4], labels=np.array([1, 1, 1, 0]))
    found = judged(("a", "b"), (first, second), few, "mean")
    assert (found.top1, found.together, found.largest_class) == ((0.25, 0.75), 0.75, 0.75)


def test_a_teacher_of_which_views_come_again_is_remembered(folder, data, teacher) -> None:
    _, silent = made(distill(views=1, epochs=2), folder / "views", data, teacher)
    assert silent.lines[0] == "distill: 0.1 hard + 0.9 kd(temperature 4); the teacher runs once for each image and view"
    assert "answers of the teacher were cached" in silent.lines[-1]


def test_each_generation_tells_once_what_it_kept_of_its_own_teacher(folder, data, teacher) -> None:
    _, silent = made(distill(views=1, epochs=2, generations=2), folder / "born-views", data, teacher)
    told = [line.rpartition(" in ") for line in silent.lines if "answers of the teacher were cached" in line]
    assert (len(told), len({where for _, _, where in told}), len({what for what, _, _ in told})) == (2, 2, 1)


def test_features_of_views_that_come_again_are_remembered_where_that_is_asked_for(folder, data, teacher) -> None:
    stage = distill(method="fitnets", views=1, epochs=3, keep_features=True)
    _, silent = made(stage, folder / "features", data, teacher)
    # 3 logits, stages of 4 x 8 x 8, 8 x 4 x 4 and 16 x 2 x 2, as halves
    assert silent.lines[0].startswith("distill: what is read of the teacher is kept: 902 bytes an image and view")
    assert silent.lines[1].endswith("the teacher runs once for each image and view")
    assert "features: 48 of 72 answers of the teacher were cached" in silent.lines[-1]


def test_features_of_a_teacher_whose_source_changed_are_not_those_that_were_kept(folder, data, teacher) -> None:
    def kept(source: str) -> str:
        origin = MadeBy("teacher", "teacher", 1, {}, {"network": source}, {})
        stage = distill(method="fitnets", views=1, keep_features=True)
        _, silent = made(stage, folder / f"source-{source}", data, replace(teacher, made_by=origin))
        return silent.lines[0].rpartition("/")[2]

    assert kept("a") != kept("b")


def test_a_run_that_could_keep_features_says_how(folder, data, teacher) -> None:
    _, silent = made(distill(method="rkd", views=1, epochs=2), folder / "could", data, teacher)
    assert silent.lines[0].endswith("rkd reads its embedding (distill.keep_features = true would keep that)")


def test_features_that_the_disk_has_no_room_for_are_refused_before_the_first_step(
    folder, data, teacher, monkeypatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 900}))
    with pytest.raises(StageError, match=r"902 bytes an image and view, 21.6 kB in all, and .* has 900 B left"):
        made(distill(method="fitnets", views=1, keep_features=True), folder / "full", data, teacher)


def test_layers_train_each_with_its_method(folder, data, teacher) -> None:
    pair = {"student": "layer1", "teacher": "layer2", "method": "attention_transfer", "weight": 500.0}
    artifact, silent = made(distill(method=[], layers=[pair]), folder / "layers", data, teacher)
    assert silent.lines[0].startswith("distill: 1 hard + 500 attention_transfer(layer1 from layer2")
    assert facts(artifact)["method"] == ["attention_transfer@layer1"]


def test_quantization_takes_methods_on_logits_alone() -> None:
    with pytest.raises(ValidationError, match="an exported network has logits only"):
        Quantize(method="attention_transfer")


def test_a_method_on_features_is_joined_by_kd_where_the_logits_have_a_share() -> None:
    strategy = distill(method="attention_transfer", soft_weight=0.9).strategy()
    assert [part.name for part in strategy.parts] == ["kd", "attention_transfer"]


@pytest.mark.parametrize("method", ["dkd", "dist"])
def test_terms_on_logits_are_not_diagnosed_as_features(method, folder, data, teacher) -> None:
    artifact, _ = made(distill(method=method, temperature=None, epochs=1), folder / f"terms-{method}", data, teacher)
    causes = [one["cause"] for one in json.loads((artifact.path / "diagnoses.json").read_text())]
    assert [cause for cause in causes if "feature term" in cause] == []
