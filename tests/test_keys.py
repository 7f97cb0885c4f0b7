from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilekd.artifacts import Bundle, MadeBy, SimplifiedModel, Student
from mobilekd.config import load_profile
from mobilekd.keys import differences, key_of, key_parts, made_by
from mobilekd.stage import GIVEN, Inputs
from mobilekd.stages.convert import Convert
from mobilekd.stages.data import Data
from mobilekd.stages.distill import Distill
from tests.toys import Deploy, Measure, Toy

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(options=st.dictionaries(st.text(), json_values, max_size=5))
def test_a_key_does_not_depend_on_the_order_of_options(options: dict[str, object]) -> None:
    turned = dict(reversed(options.items()))
    assert key_of({"options": options}) == key_of({"options": turned})


@given(options=st.dictionaries(st.text(), json_values, max_size=5))
def test_equal_parts_do_not_differ(options: dict[str, object]) -> None:
    assert differences({"options": options, "version": 1}, {"options": options, "version": 1}) == []


def test_differences_name_tools_inputs_and_version() -> None:
    before = {"stage": "train", "version": 1, "tools": {"torch": "2.12"}, "inputs": [["Student", "a"]]}
    after = {"stage": "train", "tools": {"torch": "2.13"}, "inputs": [["Student", "b"]], "version": 2}
    assert differences(before, after) == ["version 1 -> 2", "tool torch 2.12 -> 2.13", "input Student changed"]


class Teller(Toy):
    makes = Bundle
    needs = (Student,)
    tells_history = True


def student(**made: object) -> Inputs:
    known = {"label": "distil", "stage": "distil", "version": 1, "options": {}, "sources": {}, "tools": {}}
    return Inputs([Student(Path("x"), "digest", MadeBy(**{**known, **made}))])  # type: ignore[arg-type]


@pytest.mark.parametrize("changed", [{"options": {"epochs": 3}}, {"sources": {"path": "a"}}, {"tools": {"torch": "2"}}])
def test_how_an_input_was_made_enters_the_key_of_a_stage_that_tells_it(changed: dict[str, object]) -> None:
    before, after = (key_parts(Teller(), inputs, str) for inputs in (student(), student(**changed)))
    assert key_of(before) != key_of(after)
    assert differences(before, after) == ["how distil was made changed"]


def test_how_an_input_was_made_is_no_matter_to_other_stages() -> None:
    before, after = (key_parts(Deploy(), inputs, str) for inputs in (student(), student(options={"epochs": 3})))
    assert before == after


def test_a_measurement_has_no_history() -> None:
    assert made_by(Measure(), {"sources": {"host": "build-box-7"}, "tools": {}}) is None


def test_where_data_and_checkpoints_lie_is_not_recorded() -> None:
    data = Data(source="npz", path="/home/me/x.npz")
    assert data.recorded_options()["path"] == GIVEN
    assert Data().recorded_options()["path"] == ""


def test_where_checkpoints_of_extra_teachers_lie_is_not_recorded() -> None:
    extra = ({"network": "timm:resnet18", "checkpoint": "/home/me/x.pt"},)
    stage = Distill.model_validate({"network": "timm:resnet18", "extra_teachers": extra})
    assert stage.recorded_options()["extra_teachers"] == [
        {"network": "timm:resnet18", "checkpoint": GIVEN, "weight": 1.0}
    ]


def test_a_folder_that_is_downloaded_into_has_no_recorded_digest() -> None:
    assert Data(source="cifar10", path="x", download=True).recorded_sources({"path": "a"}) == {}
    assert Data(source="cifar10", path="x").recorded_sources({"path": "a"}) == {"path": "a"}


def conversion_key(profile: str, label: str) -> str:
    stage = next(one for one in Convert().for_profile(load_profile(profile)) if one.label() == label)
    return key_of(key_parts(stage, Inputs([SimplifiedModel(Path("model"), "a" * 64)]), str))


@pytest.mark.parametrize(
    ("profile", "label", "keys"),
    [("jetson-orin", "convert:tensorrt-int8", 2), ("android-arm64", "convert:mnn-int8", 1)],
)
def test_a_conversion_that_another_architecture_does_otherwise_has_another_key_there(
    monkeypatch: pytest.MonkeyPatch, profile: str, label: str, keys: int
) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    here = conversion_key(profile, label)
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert len({here, conversion_key(profile, label)}) == keys


def test_the_machine_of_a_conversion_is_no_digest_of_its_provenance() -> None:
    assert Convert().recorded_sources({"machine": "x86_64", "lock": "a"}) == {"lock": "a"}
