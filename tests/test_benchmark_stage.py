"""What makes the benchmark stage measure again, and what does not."""

from pathlib import Path

import pytest

from mobilekd.device import web_runtime
from mobilekd.errors import ConfigError
from mobilekd.profile import Budget, DeviceSettings, Profile, Tolerance
from mobilekd.stages.benchmark import Benchmark
from tests.benchmarking.small import CPU, profile


def stage(of: Profile) -> Benchmark:
    (found,) = Benchmark().for_profile(of)
    assert isinstance(found, Benchmark)
    return found


@pytest.mark.parametrize("changed", [{"budget": Budget(p50_ms=1.0)}, {"max_top1_drop": 0.01}])
def test_what_it_does_not_read_changes_nothing(changed: dict[str, object]) -> None:
    assert stage(profile().model_copy(update=changed)) == stage(profile())


@pytest.mark.parametrize("changed", [{"images": 10}, {"cpu": CPU}, {"place": "host"}])
def test_the_device_table_is_part_of_its_options(changed: dict[str, object]) -> None:
    assert stage(profile(**changed)) != stage(profile())


def test_the_agreement_that_it_asks_for_is_part_of_its_options() -> None:
    stricter = profile().model_copy(update={"tolerance": Tolerance(agreement=0.5)})
    assert stage(stricter) != stage(profile())


def test_a_compiler_that_is_missing_is_told_before_anything_runs(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (told,) = stage(profile(place="host")).missing()
    assert "C compiler" in told


def test_an_emulator_that_is_missing_is_told_before_anything_runs(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (told,) = stage(profile(place="emulator", cpu=CPU)).missing()
    assert "qemu" in told


@pytest.fixture
def browser(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """Nothing but a browser that tells its version is on PATH, and nothing is kept for devices; its path."""
    (tmp_path / "browser").write_text("#!/bin/sh\necho Chromium 1.2\n")
    (tmp_path / "browser").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("MOBILEKD_CACHE", str(tmp_path / "cache"))
    return str(tmp_path / "browser")


def test_a_page_s_runtime_that_can_not_be_had_is_told_before_anything_runs(browser: str, tmp_path: Path) -> None:
    (told,) = stage(profile(transport="web", browser=browser)).missing()
    pin, folder = web_runtime.pin(), tmp_path / "cache" / "devices" / "web"
    assert told == (
        f"npm is not on PATH, which downloads {pin.told} once "
        f"(apt-get install npm; or lay {pin.tarball} of npm's registry into {folder})"
    )


def test_a_tarball_in_its_place_is_enough_for_a_page(browser: str, tmp_path: Path) -> None:
    laid = web_runtime.laid_tarball(tmp_path / "cache" / "devices")
    laid.parent.mkdir(parents=True)
    laid.write_bytes(b"looked at when it is unpacked")
    assert stage(profile(transport="web", browser=browser)).missing() == ()


def test_the_place_that_was_found_is_a_source(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = stage(profile(transport="adb", cpu=CPU)).sources(lambda _: "")
    assert found["place"] == "host"
    assert found["on"].startswith("local ")


def test_another_phone_is_another_source(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    (tmp_path / "adb").write_text("#!/bin/sh\nprintf '0123\\tdevice\\n4567\\tdevice\\n'\n")
    (tmp_path / "adb").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    found = [
        stage(profile().model_copy(update={"device": DeviceSettings(transport="adb", serial=serial)})).sources(str)
        for serial in ("0123", "4567")
    ]
    assert [one["on"] for one in found] == ["adb 0123", "adb 4567"]


def test_the_runtime_of_a_page_is_a_source(browser: str) -> None:
    found = stage(profile(transport="web", browser=browser)).sources(lambda _: "")
    assert (found["on"], found["runtime"]) == ("web Chromium 1.2", web_runtime.pin().told)


def test_without_a_profile_it_measures_nothing() -> None:
    with pytest.raises(ConfigError, match="the benchmark stage has no profile"):
        Benchmark().sources(lambda _: "")


def test_the_place_is_looked_for_once_a_command(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    (tmp_path / "adb").write_text(f"#!/bin/sh\necho asked >> {tmp_path}/log\nprintf '0123\\tdevice\\n'\n")
    (tmp_path / "adb").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    one = stage(profile(transport="adb"))
    assert (one.missing(), one.sources(str)["on"], one.sources(str)["place"]) == ((), "adb 0123", "device")
    assert (tmp_path / "log").read_text() == "asked\n"


def test_the_place_that_was_found_is_no_option() -> None:
    found = stage(profile(place="host"))
    found.sources(str)
    assert found.options() == stage(profile(place="host")).options()
