"""Methods that read other options than their neighbours in one sweep."""

from pathlib import Path

import pytest

from mobilekd.config import load_pipeline, parse_override
from mobilekd.errors import ConfigError
from mobilekd.sweep_grid import axes_of
from mobilekd.sweep_space import Space

TEMPERATURES = "distill.temperature=2.0,4.0"
FILE = """
name = "own"
stages = ["data", "teacher", "distill"]
data = { source = "digits", image_size = 32 }
teacher = { network = "timm:resnet10t" }
[distill]
network = "timm:resnet10t"
method = "kd"
temperature = 3.0
method_options = { kd = { weight = 2.0 } }
"""


@pytest.fixture
def own(tmp_path: Path) -> str:
    path = tmp_path / "own.toml"
    path.write_text(FILE, encoding="utf-8")
    return str(path)


def space(own: str, methods: list[str], choices: list[str], *overrides: str) -> Space:
    return Space(own, tuple(parse_override(one) for one in overrides), axes_of([], [], methods, choices))


def test_a_method_without_a_temperature_comes_once_in_a_sweep_of_temperatures(own) -> None:
    found = [one.values for one in space(own, ["rkd", "kd"], [TEMPERATURES]).combinations()]
    assert found == [
        {"distill.method": "rkd"},
        {"distill.method": "kd", "distill.temperature": 2.0},
        {"distill.method": "kd", "distill.temperature": 4.0},
    ]


def test_every_combination_of_such_a_sweep_is_a_pipeline(own) -> None:
    found = space(own, ["rkd", "kd"], [TEMPERATURES]).combinations()
    students = [load_pipeline(own, one.overrides).stages[-1] for one in found]
    assert [(one.method, one.temperature) for one in students] == [("rkd", None), ("kd", 2.0), ("kd", 4.0)]


def test_what_is_left_out_is_told_in_one_line(own) -> None:
    (rkd, *_) = space(own, ["rkd", "kd"], [TEMPERATURES]).combinations()
    of_file = "distill.method_options of kd of the pipeline"
    assert rkd.left_out == f"rkd: no use for {of_file}, distill.temperature; left out"


def test_a_soft_weight_adds_kd_which_reads_the_temperature(own) -> None:
    found = list(space(own, ["rkd"], [TEMPERATURES], "distill.soft_weight=0.5").combinations())
    assert [one.values["distill.temperature"] for one in found] == [2.0, 4.0]


def test_options_of_another_method_leave_a_combination(own) -> None:
    found = space(own, ["rkd", "kd"], ["distill.method_options.rkd.weight=1.0,2.0"]).combinations()
    assert [one.values for one in found] == [
        {"distill.method": "rkd", "distill.method_options.rkd.weight": 1.0},
        {"distill.method": "rkd", "distill.method_options.rkd.weight": 2.0},
        {"distill.method": "kd"},
    ]


def test_a_set_option_holds_for_the_methods_that_read_it(own) -> None:
    found = list(space(own, ["rkd", "kd"], [], "distill.temperature=5.0").combinations())
    assert [load_pipeline(own, one.overrides).stages[-1].temperature for one in found] == [None, 5.0]


@pytest.mark.parametrize(
    ("choices", "overrides"), [([TEMPERATURES], []), (["distill.epochs=1,2"], ["distill.temperature=4.0"])]
)
def test_a_value_that_no_method_of_the_sweep_reads_is_refused(own, choices, overrides) -> None:
    with pytest.raises(ConfigError, match=r"distill.temperature.*: no method of this sweep reads it"):
        space(own, ["rkd", "sp"], choices, *overrides).check()


def test_a_wrong_value_is_refused_where_the_first_method_does_not_read_it(own) -> None:
    with pytest.raises(ConfigError, match=r"distill.temperature"):
        space(own, ["rkd", "kd"], ["distill.temperature=2.0,-1.0"]).check()
