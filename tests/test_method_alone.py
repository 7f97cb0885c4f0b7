"""A method named alone is that method as docs/methods.md has it; what of a pipeline file counts beside it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mobilekd import cli
from mobilekd.config import Override, Pipeline, load_pipeline, parse_override
from mobilekd.errors import ConfigError
from mobilekd.plugins import METHODS
from mobilekd.stages.distill import Distill
from mobilekd.stages.quantize import Quantize
from mobilekd.train import TrainOptions, train_overrides

SHIPPED = ("cifar10", "imagefolder", "quickstart")
WITH_KD = "0.1 hard + 0.9 kd(temperature 4)"

LOSSES = {
    "kd": WITH_KD,
    "dkd": "1 hard + 1 dkd(temperature 4)",
    "dist": "1 hard + 1 dist(temperature 1)",
    "fitnets": "1 hard + 4 fitnets",
    "attention_transfer": "1 hard + 1000 attention_transfer",
    "sp": "1 hard + 3000 sp",
    "reviewkd": "1 hard + 1 reviewkd",
    "rkd": "1 hard + 1 rkd",
    "crd": "1 hard + 0.8 crd",
}

# A user's file that was written for kd.
OWN = """
name = "own"
stages = ["data", "teacher", "distill"]
[teacher]
network = "timm:resnet18"
[distill]
network = "timm:resnet10t"
method = "kd"
temperature = 3.0
soft_weight = 0.8
method_options = { kd = { ramp = 0.5 } }
"""


def loss(pipeline: Pipeline, kind: type[Distill | Quantize] = Distill) -> str:
    (stage,) = (one for one in pipeline.stages if isinstance(one, kind))
    return stage.strategy().describe()


def typed(method: str, **more: float) -> list[Override]:
    return train_overrides(TrainOptions(methods=(method,), **more))


@pytest.fixture
def own(tmp_path: Path) -> str:
    file = tmp_path / "own.toml"
    file.write_text(OWN)
    return str(file)


def test_every_method_has_its_loss_below() -> None:
    assert sorted(LOSSES) == sorted(METHODS.names())


@pytest.mark.parametrize("pipeline", SHIPPED)
@pytest.mark.parametrize(("method", "told"), LOSSES.items())
def test_a_method_named_alone_is_that_method(pipeline: str, method: str, told: str) -> None:
    assert loss(load_pipeline(pipeline, typed(method))) == told


@pytest.mark.parametrize("kind", [Distill, Quantize])
@pytest.mark.parametrize("pipeline", SHIPPED)
def test_a_shipped_pipeline_distils_with_a_tenth_of_the_labels(pipeline: str, kind: type[Distill | Quantize]) -> None:
    assert loss(load_pipeline(pipeline), kind) == WITH_KD


def test_kd_by_default_is_kd_with_a_share_of_nine_tenths_and_temperature_four() -> None:
    named = Distill(network="timm:resnet10t", temperature=4.0, soft_weight=0.9)
    assert Distill(network="timm:resnet10t").strategy() == named.strategy()


@pytest.mark.parametrize(
    ("method", "told"),
    [("dkd", "0.5 hard + 0.5 dkd(temperature 2)"), ("rkd", "0.5 hard + 0.5 kd(temperature 2) + 1 rkd")],
)
def test_alpha_and_temperature_count_for_every_method(method: str, told: str) -> None:
    assert loss(load_pipeline("quickstart", typed(method, alpha=0.5, temperature=2.0))) == told


def test_keys_of_the_file_count_with_the_method_of_the_file(own: str) -> None:
    assert loss(load_pipeline(own)) == "0.2 hard + 0.8 kd(temperature 3, ramp 0.5)"


def test_keys_of_the_file_count_for_another_method_that_takes_them(own: str) -> None:
    pipeline = load_pipeline(own, typed("dkd"))
    assert loss(pipeline) == "0.2 hard + 0.8 dkd(temperature 3)"
    assert pipeline.notes == (
        f'{own}: distill.method_options.kd = {{"ramp": 0.5}} is left out: --method dkd has no use for it',
    )


def test_a_temperature_of_the_file_that_no_method_has_is_left_out_and_told(own: str) -> None:
    pipeline = load_pipeline(own, typed("rkd", alpha=0.0))
    assert loss(pipeline) == "1 hard + 1 rkd"
    assert f"{own}: distill.temperature = 3.0 is left out: --method rkd has no use for it" in pipeline.notes


@pytest.mark.parametrize(
    "more",
    [typed("rkd", temperature=4.0, alpha=0.0), [*typed("rkd", alpha=0.0), parse_override("distill.temperature=4")]],
)
def test_a_temperature_of_the_command_line_that_no_method_has_is_refused(own: str, more: list[Override]) -> None:
    with pytest.raises(ConfigError, match="temperature is set, and none of rkd has one"):
        load_pipeline(own, more)


def test_options_that_the_command_line_gives_another_method_are_refused(own: str) -> None:
    more = parse_override("distill.method_options.kd.weight=2.0")
    with pytest.raises(ConfigError, match="method_options has 'kd', which is not distilled"):
        load_pipeline(own, [*typed("dkd"), more])


def test_a_file_that_does_not_hold_by_itself_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text(OWN.replace('method = "kd"', 'method = "rkd"').replace("soft_weight = 0.8", "soft_weight = 0.0"))
    with pytest.raises(ConfigError, match="has 'kd', which is not distilled"):
        load_pipeline(str(file))


def test_what_is_left_out_is_said_on_stderr(own: str, capfd: pytest.CaptureFixture[str]) -> None:
    settings = ["distill.method=rkd", "distill.soft_weight=0.0"]
    assert cli.run(["plan", "--json", "--pipeline", own, *(word for one in settings for word in ("--set", one))]) == 0
    out, err = capfd.readouterr()
    assert json.loads(out)["stages"][-1]["outline"]["loss"] == "1 hard + 1 rkd"
    assert "--set distill.method=rkd has no use for it" in " ".join(err.split())


PLANS = [
    ({}, "the teacher runs in every step"),
    ({"views": 4}, "the teacher runs once for each image and view"),
    ({"method": "fitnets"}, "the teacher runs in every step: fitnets reads its stages"),
    ({"method": "fitnets", "views": 4}, "the teacher runs in every step: fitnets reads its stages"),
    ({"method": "fitnets", "views": 4, "keep_features": True}, "the teacher runs once for each image and view"),
    ({"soft_weight": 0.0}, "the teacher does not run: no method has a weight"),
]


@pytest.mark.parametrize(("options", "told"), PLANS)
def test_an_outline_says_when_the_teacher_runs(options: dict[str, object], told: str) -> None:
    assert Distill(network="timm:resnet10t", **options).outline()["teacher"] == told


def test_a_stage_that_trains_nothing_has_no_outline() -> None:
    assert Quantize(epochs=0).outline() == {}


def test_a_plan_shows_the_loss_and_imports_no_torch() -> None:
    words = ["plan", "--set", "distill.method=fitnets"]
    code = f"import sys; from mobilekd import cli; cli.run({words!r}); print('torch' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "distill: 1 hard + 4 fitnets; the teacher runs in every step: fitnets reads its stages" in told
    assert told.endswith("False\n")


@pytest.mark.parametrize("stage", ["teacher", "distill"])
def test_a_network_without_weights_and_without_training_is_refused(
    stage: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["train", "--set", f"{stage}.epochs=0"]) == 2
    assert f"{stage}.epochs is 0, and there is neither {stage}.checkpoint" in capfd.readouterr().err
