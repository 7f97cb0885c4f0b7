import json
from dataclasses import replace
from pathlib import Path

import pytest

from mobilekd import cli
from mobilekd.config import load_pipeline, load_profile, parse_override
from mobilekd.errors import ConfigError, MissingToolError, VerificationError
from mobilekd.keys import made_by
from mobilekd.recorded_build import Recorded, check_versions, other_versions, read_recorded, recorded_build
from mobilekd.release.provenance import BuildFacts, Provenance, provenance_of
from mobilekd.reproduce import Reproduction, check_same
from mobilekd.versions import code_digest, machine, python_version
from mobilekd.wiring import expand
from tests.release.workshop import Workshop as Toy

FOUND = Reproduction(
    digest="a" * 64,
    rebuilt="b" * 64,
    files={"models/x.onnx": "same", "provenance.json": "different", "quant_table.json": "different"},
    stage="quantize",
    reused=(),
    versions=(),
    seconds=1.0,
)


def provenance(*sets: str, tools: dict[str, str] | None = None) -> Provenance:
    """Return what a build with these options would record."""
    overrides = [parse_override(one) for one in sets]
    pipeline, profile = load_pipeline("quickstart", overrides), load_profile("android-arm64", overrides)
    stages = expand(pipeline, profile)
    parts = {"sources": {}, "tools": tools or {}}
    made = [stage.makes(Path("x"), "0" * 64, made_by(stage, parts)) for stage in stages[:-1]]
    packed_by = made_by(stages[-1], parts)
    facts = BuildFacts(
        command="",
        seed=pipeline.seed,
        packed_by=packed_by,
        made=made,
        python=python_version(),
        machine=machine(),
        code=code_digest(),
    )
    return provenance_of(facts, pipeline.name, profile)


def recorded(*sets: str, tools: dict[str, str] | None = None) -> Recorded:
    return Recorded(Path("x.zip"), "a" * 64, {}, provenance(*sets, tools=tools))


@pytest.mark.parametrize("sets", [(), ("seed=5", "distill.epochs=2", "profile.max_top1_drop=0.01")])
def test_recorded_options_give_the_pipeline_again(sets: tuple[str, ...]) -> None:
    overrides = [parse_override(one) for one in sets]
    pipeline, profile = recorded_build(recorded(*sets), [])
    wanted = [stage for stage in load_pipeline("quickstart", overrides).stages if not stage.measures]
    expected = expand(load_pipeline("quickstart", overrides), load_profile("android-arm64", overrides))
    got = [one.recorded_options() for one in expand(pipeline, profile) if not one.measures]
    assert got == [one.recorded_options() for one in expected if not one.measures]
    assert [one.stage_name() for one in pipeline.stages if not one.measures] == [one.stage_name() for one in wanted]


def test_the_command_of_the_second_build_is_that_of_the_first() -> None:
    pipeline, profile = recorded_build(recorded("seed=5", "distill.epochs=2"), [])
    expected = expand(
        load_pipeline("quickstart", [parse_override("seed=5"), parse_override("distill.epochs=2")]), profile
    )
    assert expand(pipeline, profile)[-1].command == expected[-1].command  # type: ignore[attr-defined]


def test_nothing_is_measured_again() -> None:
    pipeline, _ = recorded_build(recorded(), [])
    assert [one.stage_name() for one in pipeline.stages if one.measures] == ["unmeasured"]


def test_the_users_data_are_asked_for() -> None:
    with pytest.raises(ConfigError, match=r"the user's own data\.path") as caught:
        recorded_build(recorded("data.source=npz", "data.path=/x.npz"), [])
    assert "--data DIR" in caught.value.hint


def test_a_checkpoint_of_the_users_is_asked_for_by_its_option() -> None:
    with pytest.raises(ConfigError, match=r"teacher\.checkpoint") as caught:
        recorded_build(recorded("teacher.epochs=0", "teacher.checkpoint=/x.safetensors"), [])
    assert caught.value.hint == "--set teacher.checkpoint=FILE"


def test_a_given_place_is_taken() -> None:
    pipeline, _ = recorded_build(
        recorded("data.source=npz", "data.path=/x.npz"), [parse_override("data.path=/elsewhere/y.npz")]
    )
    assert pipeline.stages[0].options()["path"] == "/elsewhere/y.npz"


@pytest.mark.parametrize(
    ("words", "told"),
    [("distill.epochs=3", r"distill\.epochs changes what is recorded"), ("nonsense.path=3", "no option of a recorded")],
)
def test_an_option_that_is_no_place_is_refused(words: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        recorded_build(recorded(), [parse_override(words)])


def test_equal_versions_are_no_matter() -> None:
    assert other_versions(provenance()) == ()


def test_other_versions_are_told_with_the_command_that_brings_them() -> None:
    with pytest.raises(MissingToolError, match=r"pydantic: 0\.1, here \d") as caught:
        check_versions(recorded(tools={"pydantic": "0.1"}))
    assert "pip install 'pydantic==0.1'" in caught.value.hint
    assert "--anyway" in caught.value.hint


def test_the_first_file_is_one_that_restates_no_other() -> None:
    assert FOUND.first_file == "quant_table.json"


def test_a_difference_names_the_file_and_the_stage() -> None:
    with pytest.raises(VerificationError, match=r"quant_table\.json is different.*stage that made .* quantize"):
        check_same(FOUND)


def test_an_equal_digest_passes() -> None:
    check_same(replace(FOUND, rebuilt=FOUND.digest))


def test_a_result_is_json() -> None:
    document = json.loads(json.dumps(FOUND.to_json()))
    assert (document["same"], document["first_file"], document["first_stage"]) == (
        False,
        "quant_table.json",
        "quantize",
    )


def test_a_changed_bundle_is_not_read(tmp_path) -> None:
    bundle = Toy(tmp_path).bundle() / "bundle"
    (bundle / "labels.txt").write_text("cat\n")
    with pytest.raises(VerificationError, match=r"labels\.txt"):
        read_recorded(bundle)


def test_a_bundle_of_other_versions_ends_in_3_with_nothing_on_stdout(tmp_path, capfd) -> None:
    bundle = Toy(tmp_path).bundle() / "bundle"
    assert cli.run(["bundle", "reproduce", str(bundle)]) == 3
    out, err = capfd.readouterr()
    assert (out, "Traceback" in err) == ("", False)
    assert "was built with other versions" in err
