from pathlib import Path

import pytest

from mobilekd import config
from mobilekd.config import load_profile, parse_override
from mobilekd.device.cpus import CPUS
from mobilekd.errors import ConfigError

PROFILE = """
name = "toy"
title = "Toy"
[target]
os = "linux"
abi = "x86_64"
[[deploy]]
backend = "tflite"
"""


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    path = tmp_path / "profile.toml"
    path.write_text(PROFILE)
    return path


def refused_profile(path: Path, text: str, *sets: str) -> ConfigError:
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_profile(str(path), [parse_override(one) for one in sets])
    return caught.value


def test_an_unknown_profile_lists_the_shipped() -> None:
    with pytest.raises(ConfigError, match="there is no profile 'andriod-arm64'") as caught:
        load_profile("andriod-arm64")
    assert "android-arm64" in caught.value.hint


@pytest.mark.parametrize("name", config.shipped_names("devices"))
def test_every_shipped_profile_is_read_and_has_the_name_of_its_file(name: str) -> None:
    assert load_profile(name).name == name


def test_the_shipped_profiles_are_those_of_the_documentation() -> None:
    assert set(config.shipped_names("devices")) == {
        "android-arm64",
        "android-arm64-v9",
        "android-executorch",
        "host",
        "jetson-orin",
        "linux-arm64",
        "rpi4",
        "rpi5",
        "rtx-desktop",
        "web",
    }


def test_a_page_that_has_nothing_to_run_is_refused(profile: Path) -> None:
    error = refused_profile(profile, f'{PROFILE}[device]\ntransport = "web"\n')
    assert "a page runs onnxruntime; deploy has tflite" in error.message


def test_a_profile_takes_set(profile: Path) -> None:
    read = load_profile(str(profile), [parse_override("profile.benchmark.timed_runs=50")])
    assert read.benchmark.timed_runs == 50


def test_an_unknown_backend_names_its_place(profile: Path) -> None:
    error = refused_profile(profile, PROFILE.replace("tflite", "tflit"))
    assert error.message == f"{profile}: deploy[0].backend is 'tflit'; there is no such backend"
    assert "tflite" in error.hint


def test_an_unknown_precision_lists_what_is_allowed(profile: Path) -> None:
    error = refused_profile(profile, PROFILE + 'precision = "int4"\n')
    assert error.message.startswith(f'{profile}: deploy[0].precision is "int4"')
    assert error.hint == "did you mean 'int8'? known: fp32, fp16, int8"


def test_an_unknown_key_of_a_deployment_is_told_with_its_neighbours(profile: Path) -> None:
    error = refused_profile(profile, PROFILE + 'precison = "int8"\n')
    assert error.message == f"{profile}: deploy[0].precison is not an option"
    assert "did you mean 'precision'?" in error.hint


def test_a_wrong_set_of_a_profile_names_the_option_as_typed(profile: Path) -> None:
    error = refused_profile(profile, PROFILE, "profile.benchmark.timed_runs=5")
    assert error.message.startswith("--set profile.benchmark.timed_runs=5: benchmark.timed_runs is 5")


def test_a_deployment_twice_is_refused(profile: Path) -> None:
    error = refused_profile(profile, PROFILE + '[[deploy]]\nbackend = "tflite"\n')
    assert "'tflite-int8' for the second time" in error.message


def test_int8_io_of_a_float_model_is_refused(profile: Path) -> None:
    error = refused_profile(profile, PROFILE + 'precision = "fp32"\nio = "int8"\n')
    assert f"{profile}: deploy[0].io" in error.message


def test_a_cpu_that_the_emulator_lacks_is_told_with_those_it_has(profile: Path) -> None:
    error = refused_profile(profile, PROFILE.replace("x86_64", "aarch64") + '[device]\ncpu = "cortex-a99"\n')
    assert error.message == f"{profile}: device.cpu is 'cortex-a99'; the emulator has no such CPU"
    assert "did you mean 'cortex-a76'?" in error.hint


def test_a_cpu_for_a_target_that_is_not_arm64_is_refused(profile: Path) -> None:
    error = refused_profile(profile, PROFILE, "profile.device.cpu=cortex-a76")
    assert "the emulator has no x86_64 CPUs" in error.message


@pytest.mark.parametrize("name", ["android-arm64", "android-arm64-v9", "jetson-orin", "linux-arm64", "rpi4", "rpi5"])
def test_an_arm64_profile_names_a_cpu_that_can_stand_for_it(name: str) -> None:
    assert load_profile(name).device.cpu in CPUS


@pytest.mark.parametrize(
    ("key", "told"),
    [
        ("place=moon", 'device.place is "moon"'),
        ("transport=usb", 'device.transport is "usb"'),
        ("images=-1", "device.images is -1"),
        ("cores=[1]", "device.cores is not an option"),
    ],
)
def test_a_wrong_word_of_the_device_table_is_named(profile: Path, key: str, told: str) -> None:
    assert told in refused_profile(profile, PROFILE, f"profile.device.{key}").message
