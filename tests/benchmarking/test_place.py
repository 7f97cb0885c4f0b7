"""Which place is chosen, and what is said where none is there."""

import os
import platform

import pytest

from mobilekd.benchmarking.place import choose, open_place
from mobilekd.config import load_profile
from mobilekd.device_doctor import examine
from mobilekd.errors import ConfigError, DeviceError, MissingToolError
from mobilekd.profile import BenchmarkSettings, Target
from tests.benchmarking.small import CPU, profile
from tests.device.tools import need

SAID = "cannot connect to daemon"
NO_SERVER = f"echo {SAID}; exit 1"
HERE = Target(os="linux", abi="x86_64" if platform.machine() == "x86_64" else "aarch64")


@pytest.mark.usefixtures("no_programs")
def test_without_any_program_the_host_is_left_and_every_lack_is_told() -> None:
    place = choose(profile(transport="adb", cpu=CPU))
    assert (place.kind, place.transport, place.on_target) == ("host", "local", False)
    assert "adb is not on PATH" in place.why
    assert "qemu-aarch64 is not on PATH (apt-get install qemu-user)" in place.why


@pytest.mark.usefixtures("no_programs")
def test_a_profile_without_a_cpu_says_so() -> None:
    assert "profile small names no CPU to emulate" in choose(profile(transport="adb")).why


@pytest.mark.usefixtures("no_programs")
def test_a_host_that_is_asked_for_needs_no_reason() -> None:
    assert choose(profile(place="host", transport="adb", cpu=CPU)).why == ""


@pytest.mark.usefixtures("no_programs")
@pytest.mark.parametrize(("where", "absent"), [("device", "adb"), ("emulator", "qemu-aarch64")])
def test_a_place_that_is_asked_for_is_not_replaced(where: str, absent: str) -> None:
    with pytest.raises(MissingToolError, match=f"{absent} is not on PATH") as caught:
        choose(profile(place=where, transport="adb", cpu=CPU))
    assert "apt-get install" in caught.value.hint


def test_a_profile_without_a_transport_has_no_device() -> None:
    with pytest.raises(DeviceError, match="profile small reaches no device") as caught:
        choose(profile(place="device", cpu=CPU))
    assert 'transport = "adb", "ssh" or "web"' in caught.value.hint


def test_an_emulator_without_a_cpu_lists_those_there_are() -> None:
    with pytest.raises(DeviceError, match="names no CPU to emulate") as caught:
        choose(profile(place="emulator"))
    assert CPU in caught.value.hint


def test_a_board_without_a_name_is_told_with_the_option() -> None:
    with pytest.raises(DeviceError, match="no board is named") as caught:
        choose(profile(place="device", transport="ssh"))
    assert "profile.device.host=HOST" in caught.value.hint


def test_a_board_that_was_named_and_is_not_there_is_never_passed_over() -> None:
    need("ssh")
    with pytest.raises(DeviceError, match=r"nowhere\.invalid"):
        choose(profile(transport="ssh", host="nowhere.invalid", cpu=CPU))


def test_a_host_of_the_target_s_kind_is_the_target() -> None:
    place = choose(profile(HERE, transport="local"))
    assert (place.kind, place.on_target, "not the target" in place.told) == ("host", True, False)


def test_no_phone_leaves_the_emulator_and_says_why(fake_adb) -> None:
    need("qemu-aarch64", "aarch64-linux-gnu-gcc")
    fake_adb()
    place = choose(profile(transport="adb", cpu=CPU))
    assert (place.kind, place.name, place.on_target) == ("emulator", CPU, False)
    assert (place.told, place.why) == (f"emulated {CPU}", "no phone is attached")


def test_an_adb_without_its_server_is_no_device_and_says_so(scripted_adb) -> None:
    scripted_adb(NO_SERVER)
    place = choose(profile(transport="adb"))
    assert (place.kind, place.why.partition(";")[0]) == ("host", f"adb can't start its server: {SAID}")


@pytest.mark.slow
def test_an_adb_that_hangs_is_no_device_and_says_so(scripted_adb) -> None:
    scripted_adb("exec sleep 600")
    place = choose(profile(transport="adb"))
    assert (place.kind, place.why.partition(";")[0]) == ("host", "adb devices gave no answer within 30 s")


def test_a_device_that_is_asked_for_is_not_replaced_where_adb_fails(scripted_adb) -> None:
    scripted_adb(NO_SERVER)
    with pytest.raises(DeviceError, match=SAID) as caught:
        choose(profile(place="device", transport="adb", cpu=CPU))
    assert (caught.value.code, caught.value.hint) == ("MKD-504", "adb kill-server, then adb start-server")


def test_a_phone_that_is_named_is_not_replaced_where_adb_fails(scripted_adb) -> None:
    scripted_adb(NO_SERVER)
    with pytest.raises(DeviceError, match=SAID):
        choose(profile(transport="adb", serial="0123", cpu=CPU))


def test_the_only_phone_is_taken(fake_adb) -> None:
    fake_adb("0123 device")
    place = choose(profile(transport="adb", cpu=CPU))
    assert (place.kind, place.told, place.on_target, place.why) == ("device", "adb 0123", True, "")


@pytest.mark.parametrize("cores", [(-1,), (0, -1)])
def test_a_core_below_zero_is_no_core(cores) -> None:
    with pytest.raises(ValueError, match="greater than or equal to 0"):
        BenchmarkSettings(cores=cores)


def test_the_only_phone_that_is_ready_is_taken(fake_adb) -> None:
    fake_adb("0123 unauthorized", "4567 device")
    assert choose(profile(transport="adb")).name == "4567"


def test_a_phone_that_is_not_ready_is_named_with_its_state(fake_adb) -> None:
    fake_adb("0123 unauthorized")
    with pytest.raises(DeviceError, match="no phone is ready: 0123 is unauthorized"):
        choose(profile(place="device", transport="adb"))


def test_android_s_emulator_is_no_phone(fake_adb) -> None:
    fake_adb("emulator-5554 device")
    with pytest.raises(DeviceError, match="no phone is ready: emulator-5554"):
        choose(profile(place="device", transport="adb"))


def test_android_s_emulator_that_is_named_is_not_the_target(fake_adb) -> None:
    fake_adb("emulator-5554 device")
    place = choose(profile(transport="adb", serial="emulator-5554"))
    assert (place.kind, place.name, place.on_target) == ("device", "emulator-5554", False)


def test_two_phones_are_named_and_none_is_chosen(fake_adb) -> None:
    fake_adb("0123 device", "4567 device")
    with pytest.raises(DeviceError, match="2 adb devices are attached: 0123, 4567") as caught:
        choose(profile(transport="adb", cpu=CPU))
    assert "export ANDROID_SERIAL=0123" in caught.value.hint


WEB = Target(os="web", abi="wasm32")


def browser(tmp_path, monkeypatch) -> None:
    program = tmp_path / "browser"
    program.write_text("#!/bin/sh\necho Chromium 1.2\n")
    program.chmod(0o755)
    monkeypatch.setenv("MOBILEKD_CHROMIUM", str(program))


def test_a_browser_is_the_target_of_a_page(tmp_path, monkeypatch) -> None:
    browser(tmp_path, monkeypatch)
    place = choose(profile(WEB, transport="web"))
    assert (place.kind, place.told, place.on_target) == ("device", "Chromium 1.2 on this host", True)


@pytest.mark.parametrize("target", [Target(os="web", abi="wasm32", chip="Tensor G3"), HERE])
def test_a_browser_is_not_the_target_of_a_chip_that_is_named_or_of_another_system(
    tmp_path, monkeypatch, target
) -> None:
    browser(tmp_path, monkeypatch)
    assert not choose(profile(target, transport="web")).on_target


@pytest.mark.parametrize(
    ("settings", "device", "key"),
    [({"cores": (1,)}, {}, "benchmark.cores"), ({}, {"runner": "python"}, "device.runner")],
)
def test_what_a_page_can_not_choose_is_refused(settings, device, key) -> None:
    wanted = profile(WEB, BenchmarkSettings(timed_runs=10, **settings), transport="web", **device)
    with pytest.raises(ConfigError, match=rf"profile small sets {key}, and a page can't choose that"):
        choose(wanted)


def test_more_threads_than_this_host_has_cores_are_refused_for_a_page_before_a_browser_is_looked_for() -> None:
    cores = os.cpu_count() or 1
    wanted = profile(WEB, BenchmarkSettings(timed_runs=10, threads=cores + 1), transport="web")
    with pytest.raises(
        ConfigError, match=rf"^benchmark.threads is {cores + 1}, and this host has {cores} cores?$"
    ) as told:
        choose(wanted)
    assert told.value.hint == f"--set profile.benchmark.threads={cores}"


@pytest.mark.usefixtures("no_programs")
def test_without_a_browser_the_host_is_left_and_says_why() -> None:
    place = choose(profile(WEB, transport="web"))
    assert (place.kind, place.on_target, "no browser is on PATH" in place.why) == ("host", False, True)


@pytest.mark.usefixtures("no_programs")
def test_the_shipped_profile_of_pages_is_measured_in_a_browser_or_not_at_all() -> None:
    with pytest.raises(MissingToolError, match="no browser is on PATH"):
        choose(load_profile("web"))


@pytest.mark.parametrize(("by_profile", "by_environment", "chosen"), [("4567", "0123", "4567"), ("", "0123", "0123")])
def test_a_serial_chooses_among_phones(fake_adb, monkeypatch, by_profile, by_environment, chosen) -> None:
    fake_adb("0123 device", "4567 device")
    monkeypatch.setenv("ANDROID_SERIAL", by_environment)
    assert choose(profile(transport="adb", serial=by_profile)).name == chosen


def test_a_named_phone_that_is_not_attached_is_refused_with_those_that_are(fake_adb, tmp_path) -> None:
    fake_adb("0123 device")
    wanted = profile(transport="adb", serial="9999", cpu=CPU)
    with pytest.raises(DeviceError, match=r"adb device 9999 is not attached; attached: 0123 \(device\)"):
        open_place(choose(wanted), wanted, tmp_path).__enter__()


@pytest.mark.parametrize(
    ("state", "told"),
    [("unauthorized", "does not trust this host yet"), ("bootloader", "is in its bootloader")],
)
def test_a_named_phone_that_is_not_ready_is_refused_before_anything_is_done(fake_adb, state, told) -> None:
    fake_adb(f"0123 {state}")
    with pytest.raises(DeviceError, match=f"^adb device 0123 {told}$") as caught:
        choose(profile(transport="adb", serial="0123", cpu=CPU))
    assert caught.value.code == "MKD-503"


def test_a_named_address_where_nothing_listens_is_refused_and_not_left_in_adb_s_list(scripted_adb, tmp_path) -> None:
    scripted_adb(
        f'echo "$@" >> {tmp_path}/words; case $1 in connect) echo failed to connect: Connection refused;; esac'
    )
    with pytest.raises(DeviceError, match=r"^adb device 127\.0\.0\.1:9 can't be reached: failed to connect"):
        choose(profile(transport="adb", serial="127.0.0.1:9", cpu=CPU))
    assert (tmp_path / "words").read_text().splitlines()[-1] == "disconnect 127.0.0.1:9"


def test_the_host_is_held_by_one_benchmark_at_a_time(tmp_path) -> None:
    wanted = profile(place="host")
    place = choose(wanted)
    with open_place(place, wanted, tmp_path), pytest.raises(DeviceError, match="this machine is held by process"):
        open_place(place, wanted, tmp_path).__enter__()


@pytest.mark.parametrize(("serial", "is_needed"), [("0123", True), ("", False)])
def test_the_doctor_needs_a_phone_that_is_named_and_no_other(fake_adb, tmp_path, serial, is_needed) -> None:
    fake_adb("0123 unauthorized")
    attached = examine(profile(transport="adb", serial=serial, cpu=CPU), tmp_path)[0]
    assert (attached.name, attached.is_ok, attached.is_needed) == ("attached", False, is_needed)
