"""Wrong words of `mobilekd bench`: an exit code, a sentence and a hint each, before anything is measured."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from mobilekd import cli
from mobilekd.config import shipped_folder
from tests.release.workshop import Workshop

Refused = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Workshop(tmp_path_factory.mktemp("bundle")).bundle() / "bundle.zip"


@pytest.fixture
def refused(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Refused:
    """Run `mobilekd bench`; return its exit code, message without its code, and hint."""
    monkeypatch.delenv("ANDROID_SERIAL", raising=False)

    def run(*words: object) -> tuple[int, str, str]:
        code = cli.run(["bench", *map(str, words)])
        out, err = capfd.readouterr()
        assert (out, "Traceback" in err) == ("", False)
        error, _, hint = err.partition("\nhint: ")
        assert error.startswith("error: ")
        return code, re.sub(r" \[MKD-\d{3}\]$", "", error.removeprefix("error: "), flags=re.MULTILINE), hint.strip()

    return run


@pytest.mark.parametrize("name", ["nowhere.zip", "nowhere.tflite", "no/such/nowhere"])
def test_a_file_that_is_not_there(refused: Refused, name: str) -> None:
    code, error, hint = refused(name, "--on", "host")
    assert (code, error) == (2, f"{name}: no such file")
    assert "a bundle, its folder, or a model file (.tflite, .onnx" in hint


def test_a_folder_that_is_no_bundle(refused: Refused, tmp_path: Path) -> None:
    code, error, hint = refused(tmp_path, "--on", "host")
    assert (code, error) == (2, f"{tmp_path} is a folder without manifest.json, so it is no bundle")
    assert ".mobilekd.zip" in hint


def test_a_folder_around_a_bundle_hints_at_the_bundle(refused: Refused, bundle: Path) -> None:
    code, _, hint = refused(bundle.parent, "--on", "host")
    assert (code, hint) == (2, f"give {bundle.parent / 'bundle'}")


@pytest.mark.parametrize("name", ["notes.txt", "model.bin", "model"])
def test_a_file_that_is_neither_a_bundle_nor_a_model(refused: Refused, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("hello\n" * 100)
    code, error, hint = refused(tmp_path / name, "--on", "host")
    assert (code, error) == (2, f"{tmp_path / name} is neither a bundle nor a model")
    assert "give a bundle, its folder, or a model file (.tflite, .onnx" in hint


def test_a_bundle_with_a_changed_byte(refused: Refused, bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / "changed"
    shutil.copytree(bundle.parent / "bundle", folder)
    model = folder / "models" / "mnn-int8.mnn"
    model.write_bytes(b"\1" + model.read_bytes()[1:])
    code, error, hint = refused(folder, "--on", "host")
    assert (code, error.startswith(f"{folder}: models/mnn-int8.mnn: sha256 is ")) == (7, True)
    assert "changed after it was built" in hint


def test_a_place_that_there_is_not(refused: Refused, bundle: Path) -> None:
    code, error, hint = refused(bundle, "--on", "moon")
    assert (code, error.startswith('--on moon: device.place is "moon"')) == (2, True)
    assert hint == "known: auto, device, emulator, host"


def test_a_device_where_none_is(
    refused: Refused, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "adb").write_text("#!/bin/sh\necho List of devices attached\n")
    (tmp_path / "adb").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    code, error, hint = refused(bundle, "--on", "device")
    assert (code, error) == (5, "no phone is attached")
    assert "adb devices" in hint


def test_no_images(refused: Refused, bundle: Path) -> None:
    code, error, hint = refused(bundle, "--images", 0)
    assert (code, "'--images'" in error, hint) == (2, True, "mobilekd bench --help")


def test_a_mode_that_there_is_not(refused: Refused, bundle: Path) -> None:
    code, error, hint = refused(bundle, "--mode", "fast")
    assert (code, error.startswith('--mode fast: benchmark.mode is "fast"')) == (2, True)
    assert hint == "known: quick, release"


def test_two_bundles_of_several_models(refused: Refused, bundle: Path) -> None:
    code, error, hint = refused(bundle, bundle, "--on", "host")
    assert (code, error.startswith(f"{bundle} holds 4 models (onnxruntime-int8, ")) == (2, True)
    assert f"BUNDLE:DEPLOYMENT, as {bundle}:onnxruntime-int8" in hint


def test_a_deployment_that_a_bundle_has_not(refused: Refused, bundle: Path) -> None:
    code, error, hint = refused(f"{bundle}:nothing", "--on", "host")
    assert (code, error) == (2, f"{bundle} has no model 'nothing'")
    assert hint == "its models: onnxruntime-int8, tflite-int8, mnn-int8, tensorrt-int8"


def test_a_deployment_of_a_bundle_that_is_not_there(refused: Refused) -> None:
    code, error, _ = refused("nowhere.zip:tflite-int8", "--on", "host")
    assert (code, error) == (2, "nowhere.zip: no such file")


def test_a_deployment_that_only_a_board_can_run(refused: Refused, bundle: Path) -> None:
    code, error, _ = refused(f"{bundle}:tensorrt-int8", "--on", "host")
    assert (code, "can't be measured on host" in error, "no GPU on this host" in error) == (4, True, True)


@pytest.mark.parametrize(
    ("suffix", "told"), [(".tflite", "is no TFLite model"), (".onnx", "is no ONNX model"), (".mnn", "")]
)
def test_a_text_with_the_name_of_a_model(refused: Refused, tmp_path: Path, suffix: str, told: str) -> None:
    file = tmp_path / f"x{suffix}"
    file.write_text("not a model\n")
    code, error, hint = refused(file, "--on", "host")
    assert (code, error.startswith(str(file)), told in error, hint != "") == (2, True, True, True)
    assert "unpack" not in error


@pytest.mark.parametrize("key", ["distill.epochs=3", "benchmark.timed_runs=50", "seed=1"])
def test_a_key_that_nothing_reads(refused: Refused, bundle: Path, key: str) -> None:
    code, error, hint = refused(bundle, "--set", key)
    assert (code, error) == (2, f"--set {key}: this command reads no pipeline, only a profile")
    assert "--set profile.KEY=VALUE" in hint


def test_a_key_that_a_profile_has_not(refused: Refused, bundle: Path) -> None:
    code, error, _ = refused(bundle, "--set", "profile.device.cores=[1]")
    assert (code, "device.cores is not an option" in error) == (2, True)


def test_a_profile_whose_cpu_the_emulator_lacks(refused: Refused, bundle: Path, tmp_path: Path) -> None:
    shipped = (shipped_folder("devices") / "android-arm64.toml").read_text()
    (tmp_path / "a99.toml").write_text(shipped.replace("cortex-a76", "cortex-a99"))
    code, error, hint = refused(bundle, "--profile", tmp_path / "a99.toml")
    assert (code, "device.cpu is 'cortex-a99'; the emulator has no such CPU" in error) == (2, True)
    assert "did you mean 'cortex-a76'?" in hint


def test_an_emulator_of_a_profile_that_names_no_cpu(refused: Refused, bundle: Path) -> None:
    code, error, hint = refused(bundle, "--profile", "host", "--on", "emulator")
    assert (code, error) == (5, "profile host names no CPU to emulate")
    assert "cortex-a76" in hint
