import json
import os
from pathlib import Path

import pytest

from mobilekd import cli, config
from mobilekd.artifacts import Bundle, LatencyReport, ParityReport, write_json
from mobilekd.config import Pipeline
from mobilekd.errors import StageError
from mobilekd.profile import Profile
from mobilekd.stage import Context, Inputs, Stage
from tests.toys import Deploy, toy_pipeline

PARITY = {
    "deployment": "one-int8",
    "backend": "one",
    "precision": "int8",
    "status": "passed",
    "ships": True,
    "kernels": "default",
    "top1_reference": 0.98,
    "top1_deployed": 0.98,
    "top1_agreement": 1.0,
    "max_error_steps": 0.5,
    "float_ops": 0,
    "bytes": 1000,
}
LATENCY = {
    "deployment": "one-int8",
    "backend": "one",
    "precision": "int8",
    "ships": True,
    "latency_kind": "wall",
    "p50_ms": 1.5,
    "p90_ms": 1.6,
    "p95_ms": 1.7,
    "p99_ms": 1.8,
    "ci95_ms": [1.4, 1.6],
}


class Verify(Stage):
    makes = ParityReport

    @classmethod
    def stage_name(cls) -> str:
        return "verify"

    def run(self, _: Inputs, context: Context) -> None:
        print("a library prints this")
        os.write(1, b"and so does C\n")
        write_json(context.out / "parity.json", {"rows": [PARITY], "images": 10})


class Benchmark(Stage):
    makes = LatencyReport

    @classmethod
    def stage_name(cls) -> str:
        return "benchmark"

    def run(self, _: Inputs, context: Context) -> None:
        place = {"ran_on": "host (x86_64), not the target", "on_target": False, "measured": "2026-11-20"}
        write_json(context.out / "latency.json", {**place, "rows": [LATENCY], "samples_ms": {"one-int8": [1.5]}})


class Pack(Stage):
    makes = Bundle

    @classmethod
    def stage_name(cls) -> str:
        return "bundle"

    def run(self, _: Inputs, context: Context) -> None:
        (context.out / "bundle" / "measurements").mkdir(parents=True)
        (context.out / "bundle" / "manifest.json").write_text("{}")
        (context.out / "bundle" / "measurements" / "report.html").write_text("<html>")
        (context.out / "bundle.zip").write_bytes(b"zip")


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch, profile: Profile, tmp_path: Path) -> Path:
    """Make every pipeline and profile the toy one, and return the folder that builds go to."""
    pipeline = Pipeline("toy", "", 0, (*toy_pipeline().stages[:4], Verify(), Benchmark(), Pack()))
    monkeypatch.setattr(config, "load_pipeline", lambda *_: pipeline)
    monkeypatch.setattr(config, "load_profile", lambda *_: profile)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "dist"


def test_build_json_prints_one_object_with_every_promised_key(toy: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["build", "--json"]) == 0
    result = json.loads(capfd.readouterr().out)
    assert result["bundle"] == "dist/toy-toy.mobilekd.zip"
    assert (result["profile"], result["pipeline"]) == ("toy", "toy")
    assert result["parity"] == [PARITY]
    assert result["latency"][0]["p50_ms"] == 1.5
    assert result["latency"][0]["ran_on"] == "host (x86_64), not the target"
    assert result["over_budget"] == []
    assert [one["cached"] for one in result["stages"]] == [False] * 8
    assert {"name", "key", "cached", "seconds", "why"} == result["stages"][0].keys()


def test_build_leaves_bundle_archive_record_and_report(toy: Path) -> None:
    assert cli.run(["build"]) == 0
    assert (toy / "toy-toy.mobilekd.zip").read_bytes() == b"zip"
    assert (toy / "toy-toy" / "bundle" / "manifest.json").is_file()
    assert (toy / "toy-toy" / "report.html").read_text() == "<html>"
    record = json.loads((toy / "toy-toy" / "build.json").read_text())
    assert (record["pipeline"], record["profile"], record["seed"], len(record["stages"])) == ("toy", "toy", 0, 8)
    assert sorted(path.name for path in toy.iterdir()) == ["toy-toy", "toy-toy.mobilekd.zip"]


def test_build_shows_what_the_latency_was_measured_on(toy: Path, capfd: pytest.CaptureFixture[str]) -> None:
    cli.run(["build"])
    out, err = capfd.readouterr()
    assert "wall host (x86_64), not the target" in out
    assert "a library prints" not in out
    assert "✓ data" in err


def test_a_second_build_replaces_the_first(toy: Path) -> None:
    cli.run(["build"])
    (toy / "toy-toy" / "stale").write_text("")
    assert cli.run(["build"]) == 0
    assert not (toy / "toy-toy" / "stale").exists()


def test_a_folder_that_no_build_made_is_left_alone(toy: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (toy / "toy-toy").mkdir(parents=True)
    (toy / "toy-toy" / "mine").write_text("mine")
    assert cli.run(["build"]) == 2
    told = capfd.readouterr().err
    assert (told.count("\n"), "no build made it" in told) == (2, True)  # error and hint: no stage ran
    assert (toy / "toy-toy" / "mine").read_text() == "mine"


def test_a_place_that_is_a_file_is_told_before_any_stage_runs(
    toy: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert cli.run(["build", "--out", str(tmp_path / "file")]) == 2
    told = capfd.readouterr().err
    assert (told.count("\n"), "file is a file" in told) == (2, True)


def test_a_build_that_stops_early_has_no_bundle(toy: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["build", "--until", "train", "--json"]) == 0
    result = json.loads(capfd.readouterr().out)
    assert (result["bundle"], result["digest"], result["report"]) == (None, None, None)
    assert (result["parity"], result["latency"]) == ([], [])


def test_over_budget_is_told_after_the_result(toy: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["build", "--until", "benchmark", "--budget", "model_bytes=999", "--json"]) == 6
    out, err = capfd.readouterr()
    (sentence,) = json.loads(out)["over_budget"]
    assert sentence.startswith("one-int8: 1,000 bytes model, budget 999 bytes (budget.model_bytes)")
    assert f"error: {sentence}" in err


def test_a_budget_that_was_not_measured_is_shown_and_passes(toy: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["build", "--until", "benchmark", "--budget", "p50_ms=1"]) == 0
    assert "0 hold, 0 over, 1 not measured" in capfd.readouterr().out


def test_a_strict_build_fails_on_a_budget_that_was_not_measured(toy: Path) -> None:
    assert cli.run(["build", "--until", "benchmark", "--budget", "p50_ms=1", "--strict"]) == 6


def test_a_wrong_budget_is_told_before_anything_is_built(toy: Path) -> None:
    assert cli.run(["build", "--budget", "top1_drop=1%"]) == 2
    assert not toy.exists()


def test_a_budget_on_the_command_line_makes_no_stage_again(toy: Path, capfd: pytest.CaptureFixture[str]) -> None:
    cli.run(["build", "--until", "benchmark"])
    capfd.readouterr()
    cli.run(["build", "--until", "benchmark", "--budget", "model_bytes=2000", "--json"])
    assert {one["cached"] for one in json.loads(capfd.readouterr().out)["stages"]} == {True}


def test_a_build_writes_its_gates_for_ci(toy: Path, tmp_path: Path) -> None:
    files = ["--junit", str(tmp_path / "gates.xml"), "--markdown", str(tmp_path / "gates.md")]
    cli.run(["build", "--until", "benchmark", "--budget", "model_bytes=999", *files])
    assert 'failures="1"' in (tmp_path / "gates.xml").read_text()
    assert "❌ over" in (tmp_path / "gates.md").read_text()


def test_plan_says_what_would_run(toy: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["plan"]) == 0
    assert "8 of 8 stages run" in capfd.readouterr().out
    cli.run(["build"])
    capfd.readouterr()
    assert cli.run(["plan", "--json"]) == 0
    plan = json.loads(capfd.readouterr().out)
    assert plan["runs"] == 0
    assert plan["stages"][0]["why"] == "cached"


def test_a_failed_stage_is_told_without_a_traceback(
    toy: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Deploy, "failure", lambda _: StageError("the converter refused", hint="read the log"))
    assert cli.run(["build"]) == 4
    out, err = capfd.readouterr()
    assert out == ""
    assert "error: deploy:one: the converter refused" in err
    assert "hint: read the log" in err
    assert "Traceback" not in err


def test_a_bug_ends_in_70_with_the_traceback_in_a_log(
    toy: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Deploy, "failure", lambda _: ZeroDivisionError("oops"))
    assert cli.run(["build"]) == 70
    err = capfd.readouterr().err
    assert "Traceback" not in err
    assert "ZeroDivisionError: oops" in err
    assert "Traceback" in Path(err.split("report it with ")[1].strip()).read_text()


def test_ctrl_c_ends_in_130(toy: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(Deploy, "failure", lambda _: KeyboardInterrupt())
    assert cli.run(["build"]) == 130
    assert "goes on from the last finished stage" in capfd.readouterr().err


def test_the_cache_can_be_shown_and_pruned(toy: Path, capfd: pytest.CaptureFixture[str]) -> None:
    cli.run(["build"])
    capfd.readouterr()
    assert cli.run(["cache", "show", "--json"]) == 0
    stages = {one["name"]: one["entries"] for one in json.loads(capfd.readouterr().out)["stages"]}
    assert (stages["data"], stages["deploy"], stages["scratch"]) == (1, 2, 0)
    assert cli.run(["cache", "prune", "--days", "0"]) == 0
    assert "freed" in capfd.readouterr().out
    cli.run(["plan", "--json"])
    assert json.loads(capfd.readouterr().out)["runs"] == 8


def test_the_doctor_names_what_the_default_build_misses(
    toy: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["doctor"]) == 0
    assert "every stage finds its tools" in capfd.readouterr().out
    monkeypatch.setattr(Deploy, "missing", lambda _: ("pip install spoon",))
    assert cli.run(["doctor", "--json"]) == 3
    out, err = capfd.readouterr()
    broken = [one for one in json.loads(out)["checks"] if one["is_needed"]]
    assert [(one["is_ok"], one["mend"], one["detail"]) for one in broken] == [
        (False, "pip install spoon", "deploy:one, deploy:two")
    ]
    assert "hint: pip install spoon" in err
