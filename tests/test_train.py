"""The words of `mobilekd train`: which options of which stages they set, and what the command shows."""

import json
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from mobilekd import cli, config, train
from mobilekd.artifacts import Baseline, Student, Teacher, write_json
from mobilekd.cli_train import default_pipeline
from mobilekd.config import Pipeline, load_pipeline
from mobilekd.errors import ConfigError
from mobilekd.stage import Context, Inputs, Stage
from mobilekd.train import TrainOptions, train_overrides, train_pipeline
from mobilekd.training.diagnosis import FILE, Diagnosis, DistillFacts, diagnose, write_diagnoses
from tests.toys import Data, toy_pipeline

ALL = TrainOptions(
    teacher="resnet34",
    student="mobilenetv2_100",
    methods=("kd",),
    temperature=4.0,
    alpha=0.9,
    epochs=7,
)


def options_of(pipeline: Pipeline, stage: str) -> dict:
    return next(one for one in pipeline.stages if one.stage_name() == stage).options()


@pytest.mark.parametrize(
    ("stage", "option", "value"),
    [
        ("teacher", "network", "timm:resnet34"),
        ("distill", "network", "timm:mobilenetv2_100"),
        ("distill", "method", "kd"),
        ("distill", "temperature", 4.0),
        ("distill", "soft_weight", 0.9),
        ("distill", "epochs", 7),
    ],
)
def test_a_flag_sets_the_option_of_its_stage(stage: str, option: str, value: object) -> None:
    assert options_of(load_pipeline("quickstart", train_overrides(ALL)), stage)[option] == value


def test_no_flag_changes_nothing() -> None:
    assert train_overrides(TrainOptions()) == []


def test_a_factory_of_the_user_is_passed_on() -> None:
    (override,) = train_overrides(TrainOptions(teacher="python:nets:tiny"))
    assert override.value == "python:nets:tiny"


def test_several_methods_are_a_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(train.METHODS), "names", lambda _: ("at", "dkd", "kd"))
    (override,) = train_overrides(TrainOptions(methods=("kd, at", "dkd")))
    assert (override.keys, override.value) == (("distill", "method"), ["kd", "at", "dkd"])


def test_a_teacher_with_weights_is_not_trained() -> None:
    found = {one.keys[1]: one.value for one in train_overrides(TrainOptions(teacher_checkpoint="t.pt"))}
    assert found == {"checkpoint": "t.pt", "epochs": 0}


@pytest.mark.parametrize(("data", "name"), [(None, "quickstart"), (Path("images"), "imagefolder")])
def test_the_data_choose_the_pipeline(data: Path | None, name: str) -> None:
    assert default_pipeline(data) == name


def test_the_stages_end_with_the_student() -> None:
    found = train_pipeline(load_pipeline("quickstart"), baseline=False)
    assert [one.stage_name() for one in found.stages] == ["data", "teacher", "distill"]


def test_a_pipeline_without_a_student_is_refused() -> None:
    with pytest.raises(ConfigError, match="'toy' has no stage 'distill'"):
        train_pipeline(toy_pipeline(), baseline=False)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--method", "kb"], "there is no such method"),
        (["--teacher", "resnet3four"], "--teacher resnet3four: teacher.network"),
        (["--alpha", "2"], "--alpha 2: distill.soft_weight"),
        (["--temperature", "0"], "--temperature 0: distill.temperature"),
    ],
)
def test_a_wrong_word_ends_in_2_and_names_the_option(
    words: list[str], told: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["train", *words]) == 2
    out, err = capfd.readouterr()
    assert (out, told in err) == ("", True)


class Trained(Stage):
    """Leaves the files of a trained network."""

    needs = (Data.makes,)
    top1: ClassVar[float] = 0.9
    network: str = "timm:resnet18"
    temperature: float = 12.0
    learning_rate: float = 1e-3
    optimizer: str = "adamw"

    @classmethod
    def stage_name(cls) -> str:
        return cls.__name__.lower()

    def found(self) -> list[Diagnosis]:
        return diagnose(DistillFacts([], 0.9, 0.99, self.temperature, self.learning_rate))

    def run(self, _: Inputs, context: Context) -> None:
        top1 = type(self).top1
        write_json(context.out / "metrics.json", {"top1_test": top1, "top1_validation": top1, "parameters": 1234})
        write_json(context.out / "network.json", {"network": self.network, "classes": 2})
        write_json(context.out / "history.json", [])
        np.save(context.out / "test_logits.npy", np.eye(2)[(np.arange(1000) >= 1000 * top1).astype(int)])
        write_diagnoses(context.out / FILE, self.found())
        (context.out / "events").write_text(str(context.events))


class Teach(Trained):
    makes = Teacher
    top1 = 0.99

    @classmethod
    def stage_name(cls) -> str:
        return "teacher"


class Alone(Trained):
    makes = Baseline
    top1 = 0.95


class Distill(Trained):
    needs = (Data.makes, Teacher)
    makes = Student
    method: str = "kd"


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Train toys: no stage computes anything."""
    pipeline = Pipeline("toy", "", 0, (Data(), Teach(), Distill(network="timm:small")))
    monkeypatch.setattr(config, "load_pipeline", lambda *_: pipeline)
    monkeypatch.setattr(type(train.STAGES), "load", lambda _, name: Alone)


def test_json_tells_the_networks_the_weights_and_the_diagnoses(trained, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["train", "--json", "--baseline"]) == 0
    result = json.loads(capfd.readouterr().out)
    rows = [(one["role"], one["network"], one["top1_test"], one["cached"]) for one in result["networks"]]
    assert rows == [
        ("teacher", "timm:resnet18", 0.99, False),
        ("student alone", "timm:small", 0.95, False),
        ("student distilled", "timm:small", 0.9, False),
    ]
    assert result["student_weights"].endswith("model.safetensors")
    assert [one["cause"] for one in result["diagnoses"]] == [
        "the temperature is outside 2 to 5",
        "the student is worse than the same network trained alone",
    ]


def test_the_table_says_what_comes_from_the_cache(trained, capfd: pytest.CaptureFixture[str]) -> None:
    cli.run(["train"])
    capfd.readouterr()
    assert cli.run(["train"]) == 0
    out = capfd.readouterr().out
    assert out.count("cache") == 3  # two networks, and the folder of the weights
    assert "student alone" not in out
    assert "try:" in out


def test_tensorboard_is_a_place_of_the_work_and_not_of_the_key(trained, tmp_path: Path) -> None:
    assert cli.run(["train", "--cache", str(tmp_path), "--tensorboard", "curves"]) == 0
    (told,) = {path.read_text() for path in tmp_path.rglob("events")}
    assert told == "curves"
    assert cli.run(["train", "--cache", str(tmp_path)]) == 0
    assert len(list(tmp_path.rglob("events"))) == 2


def test_a_welcome_artifact_counts_in_the_key_where_there_is_one(tmp_path: Path) -> None:
    from mobilekd.keys import key_parts

    class Reader(Trained):
        needs = ()
        welcomes = (Baseline,)
        makes = Student

    without, given = (key_parts(Reader(), Inputs(made), str) for made in ([], [Baseline(tmp_path, "digest")]))
    assert (without["inputs"], given["inputs"]) == ([], [["Baseline", "digest"]])


def test_build_hands_the_folder_of_curves_to_its_stages(trained, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.run(["build", "--profile", "host", "--cache", "cache", "--tensorboard", "curves"]) == 0
    assert {path.read_text() for path in Path("cache").rglob("events")} == {"curves"}


def test_a_workshop_writes_no_curves_by_itself(workshop) -> None:
    assert workshop.events is None
