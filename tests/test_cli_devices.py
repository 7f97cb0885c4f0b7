import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from mobilekd import cli, config
from tests.device.tools import need
from tests.devices_help import TOOLS, own_adb_server


@pytest.fixture(autouse=True)
def _own_adb_server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    yield from own_adb_server(monkeypatch, tmp_path / "adb")


@pytest.fixture
def no_tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host on which no program is installed."""
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))


def test_list_has_a_line_for_every_shipped_profile(capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["devices", "list", "--json"]) == 0
    profiles = json.loads(capfd.readouterr().out)["profiles"]
    assert [one["name"] for one in profiles] == list(config.shipped_names("devices"))


def test_list_says_what_the_numbers_of_a_profile_are(capfd: pytest.CaptureFixture[str]) -> None:
    need(*TOOLS)
    assert cli.run(["devices", "list", "--profile", "rpi4", "--json"]) == 0
    (found,) = json.loads(capfd.readouterr().out)["profiles"]
    assert (found["place"]["kind"], found["place"]["name"]) == ("emulator", "cortex-a72")
    assert found["latency_kind"] == "guest_instructions"
    assert "no board is named" in found["place"]["why"]


@pytest.mark.usefixtures("no_tools")
def test_list_without_any_tool_shows_the_host_and_why(capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["devices", "list", "--profile", "android-arm64", "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    (profile,) = found["profiles"]
    assert profile["place"]["kind"] == "host"
    assert "adb is not on PATH" in profile["place"]["why"]
    assert "qemu-aarch64 is not on PATH" in profile["place"]["why"]
    assert found["devices"] == []
    assert "adb is not on PATH" in found["notes"][0]


@pytest.mark.usefixtures("no_tools")
def test_list_shows_a_profile_that_can_not_be_measured(capfd: pytest.CaptureFixture[str]) -> None:
    words = ["--profile", "android-arm64", "--set", "profile.device.place=emulator"]
    assert cli.run(["devices", "list", *words]) == 0
    line = capfd.readouterr().out.splitlines()[1]
    assert "nowhere" in line
    assert "qemu-aarch64 is not on PATH" in line


def test_list_is_a_table_of_profiles_then_of_devices(capfd: pytest.CaptureFixture[str]) -> None:
    need("adb")
    assert cli.run(["devices", "list"]) == 0
    heads, *lines = capfd.readouterr().out.splitlines()
    assert heads.split("  ")[0] == "profile"
    assert lines[-1] == "no device is attached, and no profile names a board"


@pytest.mark.parametrize("command", ["list", "setup", "doctor"])
@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--profile", "andriod-arm64"], "'andriod-arm64'"),
        (["--profile", "rpi5", "--set", "profile.device.cpu=cortex-a99"], "cortex-a99"),
        (["--profile", "gone.toml"], "gone.toml"),
        (["--nonsense"], "--nonsense"),
    ],
)
def test_a_mistake_of_the_user_is_named_and_ends_in_2(
    command: str, words: list[str], named: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["devices", command, *words]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert named in err


@pytest.mark.parametrize("profile", ["host", "rtx-desktop"])
def test_setup_of_a_profile_that_is_not_emulated_ends_in_2(profile: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["devices", "setup", "--profile", profile]) == 2
    assert f"profile {profile} is for x86_64" in capfd.readouterr().err


@pytest.mark.usefixtures("no_tools")
def test_setup_without_tools_ends_in_3_with_one_command(capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["devices", "setup", "--json"]) == 3
    out, err = capfd.readouterr()
    assert out == ""
    hint = next(line for line in err.splitlines() if line.startswith("hint: "))
    command, _, packages = hint.partition("--no-install-recommends ")
    assert command == "hint: apt-get install --yes "
    assert {"gcc", "libc6-dev", "qemu-user"} <= set(packages.split())


@pytest.mark.usefixtures("no_tools")
def test_setup_of_the_machine_needs_more_packages(capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["devices", "setup", "--vm"]) == 3
    err = capfd.readouterr().err
    assert "qemu-system-arm" in err
    assert "openssh-client" in err
    assert "make the virtual machine on Debian" in err


@pytest.mark.usefixtures("no_tools")
def test_doctor_without_tools_ends_in_3_with_its_report_on_stdout(capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["devices", "doctor", "--json"]) == 3
    out, err = capfd.readouterr()
    missing = {one["name"] for one in json.loads(out)["checks"] if not one["is_ok"] and one["is_needed"]}
    assert {"qemu-aarch64", "plug-ins of qemu-aarch64", "C compiler"} <= missing
    assert "apt-get install" in err


def test_doctor_marks_what_the_profile_needs(capfd: pytest.CaptureFixture[str]) -> None:
    need(*TOOLS)
    assert cli.run(["devices", "doctor", "--profile", "rpi5"]) == 0
    line = next(one for one in capfd.readouterr().out.splitlines() if " qemu-aarch64 " in one)
    assert line.split()[:4] == ["emulator", "qemu-aarch64", "yes", "ok"]


def test_doctor_of_an_x86_profile_names_no_emulator(capfd: pytest.CaptureFixture[str]) -> None:
    need("cc")
    assert cli.run(["devices", "doctor", "--profile", "host", "--json"]) == 0
    checks = json.loads(capfd.readouterr().out)["checks"]
    assert not [one["name"] for one in checks if one["area"] == "emulator"]


def test_the_doctor_of_builds_has_a_line_for_the_device_and_one_for_the_emulator(
    capfd: pytest.CaptureFixture[str],
) -> None:
    need("adb", *TOOLS)
    cli.run(["doctor", "--json"])
    checks = [one for one in json.loads(capfd.readouterr().out)["checks"] if one["area"] == "device"]
    assert [(one["name"], one["is_ok"], one["detail"]) for one in checks] == [
        ("device for android-arm64", False, "no phone is attached"),
        ("emulator for android-arm64", True, "emulated cortex-a76"),
    ]


def test_transports_are_listed(capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["list", "transports", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["transports"] == ["adb", "local", "qemu", "ssh", "vm", "web"]
