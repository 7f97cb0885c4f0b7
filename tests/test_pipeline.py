import errno
from pathlib import Path

import pytest

from mobilekd.artifacts import DeployedModel, Student
from mobilekd.config import Pipeline
from mobilekd.errors import ConfigError, MissingToolError, StageError
from mobilekd.pipeline import BuildResult, Workshop, build, plan
from mobilekd.plan import Again
from mobilekd.profile import Profile
from mobilekd.stage import Context, Inputs
from tests.toys import Data, Deploy, Distil, Measure, Silent, Toy, Train, toy_pipeline

ALL = ["data", "train", "distil", "deploy:one", "deploy:two", "measure"]


def ran(result: BuildResult) -> list[str]:
    return [one.name for one in result.stages if not one.cached]


def why(result: BuildResult) -> dict[str, str]:
    return {one.name: one.why for one in result.stages}


def test_a_first_build_runs_every_stage(workshop: Workshop, profile: Profile) -> None:
    assert ran(build(toy_pipeline(), profile, workshop)) == ALL


def test_the_same_build_again_runs_nothing(workshop: Workshop, profile: Profile) -> None:
    build(toy_pipeline(), profile, workshop)
    assert ran(build(toy_pipeline(), profile, workshop)) == []


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"data": Data(option=1)}, ALL),
        ({"train": Train(option=1)}, ALL[1:]),
        ({"distil": Distil(option=1)}, ALL[2:]),
        ({"deploy": Deploy(option=1)}, ALL[3:]),
        ({"measure": Measure(option=1)}, ALL[5:]),
    ],
)
def test_one_option_changed_runs_exactly_that_stage_and_those_after_it(
    workshop: Workshop, profile: Profile, changed: dict[str, Toy], expected: list[str]
) -> None:
    build(toy_pipeline(), profile, workshop)
    assert ran(build(toy_pipeline(**changed), profile, workshop)) == expected


def test_a_stage_that_makes_the_same_bytes_stops_the_change(
    workshop: Workshop, profile: Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(toy_pipeline(), profile, workshop)
    monkeypatch.setattr(Distil, "version", 2)
    assert ran(build(toy_pipeline(), profile, workshop)) == ["distil"]


def test_the_reason_names_the_option_and_both_values(workshop: Workshop, profile: Profile) -> None:
    build(toy_pipeline(), profile, workshop)
    told = why(build(toy_pipeline(train=Train(option=7)), profile, workshop))
    assert told["train"] == "options.option 0 -> 7"
    assert told["distil"] == "input Teacher changed"
    assert told["data"] == "cached"


def test_the_plan_says_what_waits_for_what(workshop: Workshop, profile: Profile) -> None:
    build(toy_pipeline(), profile, workshop)
    planned = plan(toy_pipeline(distil=Distil(option=7)), profile, workshop)
    assert [one.why for one in planned] == [
        "cached",
        "cached",
        "options.option 0 -> 7",
        "distil runs before it",
        "distil runs before it",
        "deploy:two runs before it",
    ]


def test_a_plan_of_an_empty_cache_runs_everything(workshop: Workshop, profile: Profile) -> None:
    planned = plan(toy_pipeline(), profile, workshop)
    assert [one.entry for one in planned] == [None] * len(ALL)
    assert planned[0].why == "no entry yet"


def test_changed_data_is_seen_by_content(workshop: Workshop, profile: Profile, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    (images / "a.jpg").write_bytes(b"a")
    pipeline = toy_pipeline(data=Data(path=str(images)))
    build(pipeline, profile, workshop)
    assert ran(build(pipeline, profile, workshop)) == []
    (images / "a.jpg").write_bytes(b"b")
    again = build(pipeline, profile, workshop)
    assert why(again)["data"] == "source path changed"


def test_a_flipped_byte_is_made_again(workshop: Workshop, profile: Profile) -> None:
    first = build(toy_pipeline(), profile, workshop)
    student = first.newest(Student)
    assert student
    content = bytearray((student.path / "content").read_bytes())
    content[0] ^= 1
    (student.path / "content").write_bytes(content)
    second = build(toy_pipeline(), profile, workshop)
    assert ran(second) == ["distil"]
    assert why(second)["distil"] == "the entry is damaged: content has other bytes"
    assert second.newest(Student) == student


def test_a_measurement_is_reused_with_its_date(workshop: Workshop, profile: Profile) -> None:
    first = build(toy_pipeline(), profile, workshop)
    told = why(build(toy_pipeline(), profile, workshop))
    assert told["measure"] == f"measured {first.stages[-1].entry.created[:10]}"


def test_remeasure_runs_only_what_measures(workshop: Workshop, profile: Profile) -> None:
    build(toy_pipeline(), profile, workshop)
    assert ran(build(toy_pipeline(), profile, workshop, again=Again(measurements=True))) == ["measure"]


def test_fresh_runs_everything_and_then_all_is_reused(workshop: Workshop, profile: Profile) -> None:
    build(toy_pipeline(), profile, workshop)
    assert ran(build(toy_pipeline(), profile, workshop, again=Again(everything=True))) == ALL
    assert ran(build(toy_pipeline(), profile, workshop)) == []


@pytest.mark.parametrize(("until", "expected"), [("train", ALL[:2]), ("deploy", ALL[:5]), ("deploy:one", ALL[:4])])
def test_until_stops_after_that_stage(workshop: Workshop, profile: Profile, until: str, expected: list[str]) -> None:
    assert ran(build(toy_pipeline(), profile, workshop, until=until)) == expected


def test_an_unknown_until_lists_the_stages(workshop: Workshop, profile: Profile) -> None:
    with pytest.raises(ConfigError, match="--until trian") as caught:
        build(toy_pipeline(), profile, workshop, until="trian")
    assert "did you mean 'train'?" in caught.value.hint


def test_a_stage_before_its_input_is_refused_before_anything_runs(
    workshop: Workshop, profile: Profile, watcher: Silent
) -> None:
    pipeline = Pipeline("toy", "", 0, (Data(), Distil(), Train()))
    with pytest.raises(ConfigError, match="stage 'distil' reads a Teacher, and no stage before it makes one") as caught:
        build(pipeline, profile, workshop)
    assert "teacher" in caught.value.hint
    assert watcher.lines == []


def test_all_missing_tools_are_told_before_anything_runs(workshop: Workshop, profile: Profile, watcher: Silent) -> None:
    pipeline = toy_pipeline(deploy=Deploy(lacking=("one", "two")))
    with pytest.raises(MissingToolError) as caught:
        build(pipeline, profile, workshop)
    assert caught.value.message.splitlines() == [
        "deploy:one: one is not installed",
        "deploy:two: two is not installed",
    ]
    assert watcher.lines == []


def test_what_is_cached_needs_no_tool(workshop: Workshop, profile: Profile, monkeypatch: pytest.MonkeyPatch) -> None:
    build(toy_pipeline(), profile, workshop)
    monkeypatch.setattr(Deploy, "missing", lambda _: ("gone",))
    assert ran(build(toy_pipeline(), profile, workshop)) == []


def test_one_failed_deployment_leaves_the_other_made_and_cached(
    workshop: Workshop, profile: Profile, watcher: Silent
) -> None:
    broken = toy_pipeline(deploy=Deploy(broken=("one",)))
    with pytest.raises(StageError, match="deploy:one: one refused"):
        build(broken, profile, workshop)
    assert "fail measure: left out: what it reads could not be made" in watcher.lines
    assert [one.entry is not None for one in plan(broken, profile, workshop)][3:] == [False, True, False]


def test_every_failed_deployment_is_named(workshop: Workshop, profile: Profile) -> None:
    with pytest.raises(StageError) as caught:
        build(toy_pipeline(deploy=Deploy(broken=("one", "two"))), profile, workshop)
    assert caught.value.message == "deploy:one: one refused\ndeploy:two: two refused"


def test_a_full_disk_names_the_place_and_leaves_nothing_half_written(
    workshop: Workshop, profile: Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    failure = OSError(errno.ENOSPC, "No space left on device", "weights")
    monkeypatch.setattr(Train, "failure", lambda _: failure)
    with pytest.raises(StageError, match=r"no space left for weights: [\d,]+ bytes are free") as caught:
        build(toy_pipeline(), profile, workshop)
    assert "--cache DIR" in caught.value.hint
    assert list(workshop.cache.root.glob("stages/train/*")) == []


def test_a_stage_that_fails_keeps_its_scratch_for_the_next_try(workshop: Workshop, profile: Profile) -> None:
    class Resumed(Toy):
        makes = DeployedModel

        def run(self, _: Inputs, context: Context) -> None:
            checkpoint = context.scratch / "checkpoint"
            if not checkpoint.exists():
                checkpoint.write_text("epoch 1")
                raise StageError("stopped")
            (context.out / "content").write_text(checkpoint.read_text())

    pipeline = Pipeline("toy", "", 0, (Resumed(),))
    with pytest.raises(StageError, match="stopped"):
        build(pipeline, profile, workshop)
    result = build(pipeline, profile, workshop)
    assert (result.made[0].path / "content").read_text() == "epoch 1"
    assert list(workshop.cache.root.glob("scratch/*")) == []
