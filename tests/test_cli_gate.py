import json
from pathlib import Path

import pytest

from mobilekd import cli
from tests.release.workshop import CLASSES, MODELS, Workshop

MODEL = MODELS[1:2]


@pytest.fixture(scope="module")
def new(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(Workshop(tmp_path_factory.mktemp("new"), models=MODEL, place="emulator").bundle() / "bundle.zip")


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The last release: it missed as many images, but others."""
    workshop = Workshop(tmp_path_factory.mktemp("old"), models=MODEL, place="emulator", wrong_from=105)
    return str(workshop.bundle() / "bundle.zip")


def test_a_bundle_within_its_budgets_ends_in_0_with_a_table(new: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["gate", new]) == 0
    out = capfd.readouterr().out
    assert "2 hold, 0 over, 1 not measured" in out
    assert "top1_drop    tflite-int8  0.83 points" in out


def test_a_bundle_over_a_budget_ends_in_6_with_the_next_step(new: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["gate", new, "--budget", "top1_drop=0.001"]) == 6
    out, err = capfd.readouterr()
    assert "1 hold, 1 over, 1 not measured" in out
    assert "error: tflite-int8: top-1 is 0.83 points below the teacher's, budget 0.10 points" in err


def test_strict_ends_in_6_on_what_was_not_measured(new: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["gate", new, "--strict"]) == 6
    assert "budget.p50_ms was not measured (it ran on emulated cortex-a76)" in capfd.readouterr().err


def test_json_is_one_object_with_every_promised_key(new: str, old: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["gate", new, "--against", old, "--budget", "release_top1_drop=0.001", "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert found.keys() == {"bundle", "digest", "profile", "against", "verdict", "gates"}
    assert (found["verdict"], found["against"]["bundle"]) == ("not measured", old)
    assert found["gates"][-1] == {
        "budget": "release_top1_drop",
        "deployment": "tflite-int8",
        "measured": 0.0,
        "limit": 0.001,
        "verdict": "holds",
        "shown": "0.00 points",
        "allowed": "0.10 points",
        "note": "95 % interval -1.80 to 1.80 points, 360 images; the limit is within the noise of 360 images",
        "next_step": "",
        "interval95": [pytest.approx(-0.017959, abs=1e-5), pytest.approx(0.017959, abs=1e-5)],
        "images": 360,
        "within_noise": True,
    }


def test_a_class_that_got_worse_than_in_the_last_release_is_over(
    new: str, old: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["gate", new, "--against", old, "--budget", "release_class_top1_drop=0.01"]) == 6
    assert "a class is" in capfd.readouterr().err


def test_a_last_release_of_other_classes_ends_in_2(tmp_path: Path, new: str, capfd: pytest.CaptureFixture[str]) -> None:
    other = Workshop(tmp_path, models=MODEL, classes=(*CLASSES[:-1], "owl")).bundle() / "bundle.zip"
    assert cli.run(["gate", new, "--against", str(other), "--budget", "release_top1_drop=0"]) == 2
    assert "class 9 is 'owl' there and 'digit 9' here" in capfd.readouterr().err


def test_a_bundle_that_is_not_there_ends_in_2(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["gate", str(tmp_path / "none.zip")]) == 2
    assert "no such bundle" in capfd.readouterr().err


def test_a_changed_bundle_ends_in_7(tmp_path: Path) -> None:
    bundle = Workshop(tmp_path, models=MODEL).bundle() / "bundle"
    (bundle / "labels.txt").write_text("changed")
    assert cli.run(["gate", str(bundle)]) == 7


def test_files_for_ci_are_written_when_a_budget_is_over(tmp_path: Path, new: str) -> None:
    files = ["--junit", str(tmp_path / "gates.xml"), "--markdown", str(tmp_path / "gates.md")]
    assert cli.run(["gate", new, "--budget", "model_bytes=1", *files]) == 6
    assert 'tests="3" failures="1" errors="0" skipped="1"' in (tmp_path / "gates.xml").read_text()
    assert "| model\\_bytes | tflite-int8 |" in (tmp_path / "gates.md").read_text()
