import json
from pathlib import Path

import pytest

from mobilekd import cli
from tests.release.workshop import Workshop


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(Workshop(tmp_path_factory.mktemp("sound")).bundle() / "bundle.zip")


@pytest.fixture(scope="module")
def drifting(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(Workshop(tmp_path_factory.mktemp("drifting"), drifting="tflite-int8").bundle() / "bundle.zip")


def test_without_bisect_the_table_of_logits_is_shown(drifting: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["parity", drifting]) == 0
    out = capfd.readouterr().out
    assert "max error (steps)" in out
    assert "act_20" not in out


def test_sound_models_are_told_with_their_largest_own_error(sound: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["parity", sound, "--bisect"]) == 0
    out = capfd.readouterr().out
    assert out.count("no tensor passes the bound; 37 of 38 tensors compared") == 5
    assert out.count("own error max 1, mean") == 5
    assert "tensorrt-int8: not compared" in out


def test_a_drifting_model_ends_in_7_with_the_tensor_and_its_neighbours(
    drifting: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["parity", drifting, "--bisect"]) == 7
    out, err = capfd.readouterr()
    assert "tflite-int8 (builtin): 'act_20' (Conv) is the first tensor past the bound" in out
    assert [word for word in out.split() if word in {"act_16", "act_17", "act_23", "act_24"}] == [
        "act_17",
        "act_23",
    ] * 3
    assert "tflite-int8 (xnnpack): 'act_20' (Conv)" in err
    assert "mnn" not in err


def test_a_higher_bound_lets_the_same_model_pass(drifting: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["parity", drifting, "--bisect", "--bound", "20"]) == 0
    assert "own error of 20 steps, 2 on average" in capfd.readouterr().out


def test_a_lower_bound_names_an_earlier_tensor(drifting: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["parity", drifting, "--bisect", "--bound", "0.5", "--json"]) == 7
    walks = json.loads(capfd.readouterr().out)["drift"]
    assert all(int(walk["first"]["name"].removeprefix("act_")) < 20 for walk in walks)


def test_json_is_one_object_with_every_promised_key(drifting: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["parity", drifting, "--bisect", "--json"]) == 7
    document = json.loads(capfd.readouterr().out)
    assert (document["bound_steps"], document["bound_mean_steps"], document["images"]) == (2.0, 0.2, 2)
    assert document["not_compared"] == ["tensorrt-int8"]
    assert [walk["first"] and walk["first"]["name"] for walk in document["drift"]] == [None, *["act_20"] * 3, None]
    assert document["drift"][1].keys() == {"deployment", "kernels", "first", "worst", "tensors", "absent"}
    assert document["drift"][0]["tensors"][0].keys() == {
        "name", "operator", "max_error_steps", "mean_error_steps", "own_max_error_steps", "own_mean_error_steps",
        "share_off", "cosine",
    }  # fmt: skip


def test_a_bundle_without_a_walk_ends_in_2_with_the_command(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    bundle = Workshop(tmp_path, drift_images=0).bundle()
    assert cli.run(["parity", str(bundle / "bundle"), "--bisect"]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert "--set verify.drift_images=2" in err


def test_a_bound_without_bisect_is_refused(sound: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["parity", sound, "--bound", "3"]) == 2
    assert "--bisect --bound 3" in capfd.readouterr().err


def test_a_bound_below_zero_is_refused(sound: str) -> None:
    assert cli.run(["parity", sound, "--bisect", "--bound", "-1"]) == 2
