import itertools
import shlex

import pytest

from mobilekd import config
from mobilekd.command import repeating_command, toml_value
from mobilekd.profile import Profile
from mobilekd.release.provenance import recorded_profile
from mobilekd.wiring import expand


def built(
    *sets: str, profile: str = "android-arm64", pipeline: str = "quickstart"
) -> tuple[config.Pipeline, config.Profile]:
    overrides = [config.parse_override(one) for one in sets]
    return config.load_pipeline(pipeline, overrides), config.load_profile(profile, overrides)


def command_of(pipeline: config.Pipeline, profile: Profile) -> str:
    return repeating_command(pipeline.name, pipeline.seed, expand(pipeline, profile), profile)


LAST_STAGES = ["quantize", "export", "simplify", "convert", "verify", "benchmark", "bundle"]
MORE_STAGES = ["data", "teacher", "alone", "distill", *LAST_STAGES]
CHOICES = {
    "nothing": (),
    "a seed": ("seed=11",),
    "numbers and names": ("distill.epochs=5", "distill.learning_rate=3e-4", 'data.licence="MIT OR \\"odd\\" $x"'),
    "a list": ('distill.method=["kd", "dkd"]', 'quantize.keep_float=["head"]'),
    "tables": ("distill.method_options={kd = {temperature = 2.0, weight = 0.5}}",),
    "tables in a list": ('distill.layers=[{student="blocks.2", teacher="layer2", method="fitnets"}]',),
    "a profile": ("profile.tolerance.agreement=0.9", "profile.max_top1_drop=0.01", "profile.budget.p50_ms=3.0"),
    "deployments": ('profile.deploy=[{backend = "mnn", io = "int8"}]', 'profile.benchmark.baseline="none"'),
    "licences by name": ('bundle.network_licences={"timm:resnet18" = "Apache-2.0", "a.b" = "MIT"}',),
    "text beyond ASCII": ('data.licence="é 😀"',),
    "more stages": (f"stages={toml_value(MORE_STAGES)}", "alone.network=timm:resnet10t"),
}


@pytest.mark.parametrize("sets", CHOICES.values(), ids=CHOICES.keys())
def test_the_command_gives_the_same_pipeline_and_profile(sets: tuple[str, ...]) -> None:
    pipeline, profile = built(*sets)
    words = shlex.split(command_of(pipeline, profile))
    again = built(*(after for word, after in itertools.pairwise(words) if word == "--set"))
    assert again[0].stages == pipeline.stages
    assert recorded_profile(again[1]) == recorded_profile(profile)


def test_an_option_that_is_the_pipelines_own_is_not_repeated() -> None:
    assert command_of(*built("distill.epochs=30", "seed=0")) == (
        "mobilekd build --profile android-arm64 --pipeline quickstart"
    )


def test_what_only_measures_is_not_repeated() -> None:
    assert "--set" not in command_of(*built("profile.device.images=3", "profile.benchmark.timed_runs=11"))


def test_what_the_profile_decides_is_not_repeated() -> None:
    command = command_of(*built("quantize.max_top1_drop=0.02", "profile.max_top1_drop=0.01"))
    assert command.endswith("--set profile.max_top1_drop=0.01")


def test_the_place_of_the_data_is_left_open() -> None:
    command = command_of(*built("data.source=npz", "data.path=/home/me/secret.npz"))
    assert "--data DIR" in command
    assert "/home/me" not in command


def test_a_pipeline_of_the_users_own_is_named_by_its_file(tmp_path) -> None:
    text = (config.shipped_folder("pipelines") / "quickstart.toml").read_text()
    (tmp_path / "x.toml").write_text(text.replace('name = "quickstart"', 'name = "mine"'))
    pipeline, profile = built("distill.epochs=2", pipeline=str(tmp_path / "x.toml"))
    assert command_of(pipeline, profile) == "mobilekd build --profile android-arm64 --pipeline mine.toml"


@pytest.mark.parametrize("value", [True, 3, 4e-3, 1e-20, "plain", 'q"uo\\te\n', ["a", 1], {"a": {"b": [1.5]}}, "é"])
def test_a_value_is_read_as_it_was_written(value: object) -> None:
    assert config.parse_override(f"x.y={toml_value(value)}").value == value
