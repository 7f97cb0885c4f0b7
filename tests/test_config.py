import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from mobilekd import config
from mobilekd.artifacts import Dataset
from mobilekd.config import load_pipeline, load_profile, parse_override
from mobilekd.errors import ConfigError
from mobilekd.plugins import Plugins
from tests.toys import Data, Distil, Toy, Train


class Seeded(Toy):
    makes = Dataset
    seed: int = 0
    pipeline_name: str = ""
    size: float = Field(default=1.0, gt=0)
    kind: str = ""


class ToyPlugins(Plugins):
    def names(self) -> tuple[str, ...]:
        return ("data", "distil", "seeded", "train")

    def load(self, name: str) -> type[Any]:
        stages: dict[str, type[Toy]] = {"data": Data, "train": Train, "distil": Distil, "seeded": Seeded}
        return stages[name]


@pytest.fixture(autouse=True)
def _toy_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "STAGES", ToyPlugins("stages"))


PIPELINE = """
name = "toy"
seed = 7
stages = ["seeded", "train"]

[train]
option = 3
"""


@pytest.fixture
def pipeline(tmp_path: Path) -> Path:
    path = tmp_path / "toy.toml"
    path.write_text(PIPELINE)
    return path


def refused(path: Path, text: str, *sets: str) -> ConfigError:
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_pipeline(str(path), [parse_override(one) for one in sets])
    assert caught.value.exit_code == 2
    return caught.value


def test_stages_come_in_the_order_of_the_file_with_their_options(pipeline: Path) -> None:
    assert load_pipeline(str(pipeline)).stages == (Seeded(seed=7, pipeline_name="toy"), Train(option=3))


def test_a_stage_keeps_its_own_seed(pipeline: Path) -> None:
    pipeline.write_text(PIPELINE + "[seeded]\nseed = 9\n")
    assert load_pipeline(str(pipeline)).stages[0] == Seeded(seed=9, pipeline_name="toy")


def test_set_changes_an_option_and_the_seed(pipeline: Path) -> None:
    overrides = [parse_override(text) for text in ("train.option=5", "seed=3", "seeded.size=2", "seeded.kind=timm:x")]
    read = load_pipeline(str(pipeline), overrides)
    assert read.stages == (Seeded(seed=3, pipeline_name="toy", size=2.0, kind="timm:x"), Train(option=5))
    assert read.seed == 3


def test_an_unknown_option_names_file_key_and_the_nearest(pipeline: Path) -> None:
    error = refused(pipeline, PIPELINE.replace("option =", "optoin ="))
    assert error.message == f"{pipeline}: train.optoin is not an option"
    assert error.hint == "did you mean 'option'? known: option"


def test_a_wrong_type_names_file_key_and_value(pipeline: Path) -> None:
    error = refused(pipeline, PIPELINE.replace("option = 3", 'option = "3"'))
    assert error.message == f'{pipeline}: train.option is "3": input should be a valid integer'


def test_true_is_not_a_number(pipeline: Path) -> None:
    error = refused(pipeline, PIPELINE.replace("option = 3", "option = true"))
    assert "train.option is true" in error.message


def test_all_wrong_options_of_a_stage_are_told_at_once(pipeline: Path) -> None:
    error = refused(pipeline, PIPELINE + "[seeded]\nsize = -1\nkind = 3\n")
    assert [line.partition(" is ")[0] for line in error.message.splitlines()] == [
        f"{pipeline}: seeded.size",
        f"{pipeline}: seeded.kind",
    ]


def test_nan_is_refused(pipeline: Path) -> None:
    assert "seeded.size is nan" in refused(pipeline, PIPELINE + "[seeded]\nsize = nan\n").message


def test_an_unknown_stage_is_quoted_with_its_place(pipeline: Path) -> None:
    error = refused(pipeline, PIPELINE.replace('"train"]', '"trian"]'))
    assert error.message == f"{pipeline}: stages[1] is 'trian'; there is no such stage"
    assert error.hint.startswith("did you mean 'train'?")


def test_a_stage_twice_is_refused(pipeline: Path) -> None:
    assert "'train' for the second time" in refused(pipeline, PIPELINE.replace('"seeded"', '"train"')).message


def test_a_table_of_no_stage_is_refused(pipeline: Path) -> None:
    error = refused(pipeline, PIPELINE + "[trian]\noption = 3\n")
    assert error.message == f"{pipeline}: trian is not a stage of this pipeline"
    assert "did you mean 'train'?" in error.hint


def test_a_stage_that_is_no_table_is_refused(pipeline: Path) -> None:
    assert "seeded is 3; a table" in refused(pipeline, "seeded = 3\n" + PIPELINE).message


def test_missing_stages_are_told(pipeline: Path) -> None:
    assert refused(pipeline, 'name = "toy"').message == f"{pipeline}: stages is missing"


def test_a_name_that_is_a_path_is_refused(pipeline: Path) -> None:
    assert 'name is "../toy"' in refused(pipeline, PIPELINE.replace('"toy"', '"../toy"')).message


def test_toml_that_is_none_names_the_line(pipeline: Path) -> None:
    assert refused(pipeline, 'name = "toy"\nseed = = 3\n').message.startswith(f"{pipeline}:2: ")


def test_text_that_is_not_utf8_is_an_error_of_the_user(pipeline: Path) -> None:
    pipeline.write_bytes(b'name = "\xff"')
    with pytest.raises(ConfigError, match="utf-8"):
        load_pipeline(str(pipeline))


def test_a_wrong_set_names_the_option_as_typed(pipeline: Path) -> None:
    error = refused(pipeline, PIPELINE, "train.option=three")
    assert error.message.startswith('--set train.option=three: train.option is "three"')


def test_a_set_of_an_unknown_stage_is_refused(pipeline: Path) -> None:
    error = refused(pipeline, PIPELINE, "trian.option=3")
    assert error.message == "--set trian.option=3: trian is not a stage of this pipeline"


def test_a_set_below_a_value_is_refused(pipeline: Path) -> None:
    assert "'option'" in refused(pipeline, PIPELINE, "train.option.deep=3").message


@pytest.mark.parametrize("text", ["epochs", "=3", "a..b=3", ".=1"])
def test_a_set_without_key_or_value_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="is not KEY=VALUE"):
        parse_override(text)


@given(value=st.text())
def test_any_text_may_stand_behind_a_set(value: str) -> None:
    override = parse_override(f"a.b={value}")
    assert override.keys == ("a", "b")
    assert override.text == f"--set a.b={value}"


@given(value=st.one_of(st.booleans(), st.integers(-(2**60), 2**60), st.lists(st.integers(-9, 9), max_size=4)))
def test_a_set_value_is_read_as_toml(value: object) -> None:
    assert parse_override(f"a={json.dumps(value)}").value == value


def test_an_unknown_pipeline_lists_the_shipped() -> None:
    with pytest.raises(ConfigError, match="there is no pipeline 'quikstart'") as caught:
        load_pipeline("quikstart")
    assert caught.value.hint.startswith("did you mean 'quickstart'?")


def test_a_path_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.toml is not a file"):
        load_profile(str(tmp_path / "gone.toml"))


@pytest.mark.parametrize("name", config.shipped_names("pipelines"))
def test_every_shipped_pipeline_has_the_name_of_its_file(name: str) -> None:
    assert tomllib.loads(config.find("pipelines", name).read_text())["name"] == name


def test_a_pipeline_ignores_the_sets_of_the_profile(pipeline: Path) -> None:
    assert load_pipeline(str(pipeline), [parse_override("profile.benchmark.timed_runs=50")]).seed == 7
