"""Which device a profile accepts."""

import pytest

from mobilekd.benchmarking.fitting import check_cores, check_fits, check_kind, cpus_here
from mobilekd.benchmarking.place import Place
from mobilekd.benchmarking.threads import check_threads
from mobilekd.config import load_profile
from mobilekd.errors import ConfigError, DeviceError
from mobilekd.profile import BenchmarkSettings
from mobilekd.transport import DeviceFacts


def facts(machine: str, *features: str) -> DeviceFacts:
    return DeviceFacts("a board", machine, features, cores=2, memory_bytes=None, system="Linux")


@pytest.mark.parametrize(
    ("profile", "machine", "features"),
    [
        ("rpi4", "aarch64", ()),
        ("android-arm64", "aarch64", ("asimddp",)),
        ("android-arm64-v9", "aarch64", ("asimddp", "i8mm")),
        ("web", "x86_64", ()),
    ],
)
def test_a_device_of_the_profile_s_kind_is_accepted(profile: str, machine: str, features: tuple[str, ...]) -> None:
    check_kind(load_profile(profile), facts(machine, *features))


@pytest.mark.parametrize(
    ("profile", "machine"), [("rpi4", "x86_64"), ("android-arm64", "armv7l"), ("rtx-desktop", "aarch64"), ("rpi5", "")]
)
def test_another_machine_is_refused_with_what_the_profile_is_for(profile: str, machine: str) -> None:
    abi = load_profile(profile).target.abi
    with pytest.raises(DeviceError, match=rf"^a board is a machine '{machine}', and profile {profile} is for {abi} "):
        check_kind(load_profile(profile), facts(machine))


def test_a_phone_without_i8mm_is_refused_by_the_profile_of_those_with_it() -> None:
    with pytest.raises(DeviceError, match=r"has no i8mm in /proc/cpuinfo, and profile android-arm64-v9") as caught:
        check_kind(load_profile("android-arm64-v9"), facts("aarch64", "asimddp"))
    assert caught.value.exit_code == 5


def test_more_threads_than_cores_are_refused_with_what_fits() -> None:
    with pytest.raises(ConfigError, match=r"^benchmark.threads is 64, and a board has 2 cores$") as caught:
        check_threads(64, 2, "a board")
    assert caught.value.hint == "--set profile.benchmark.threads=2"


def test_as_many_threads_as_cores_are_accepted() -> None:
    check_threads(2, 2, "a board")


def test_a_cpu_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(ConfigError, match=r"^benchmark.cores names CPU 7, which this host has not$") as caught:
        check_cores((0, 7), (0, 1))
    assert caught.value.hint == "its CPUs: 0, 1"


HOST = Place("host", "local", "a processor", on_target=False)


def on_host(threads: int) -> list[str]:
    told: list[str] = []
    benchmark = BenchmarkSettings(threads=threads)
    check_fits(load_profile("rpi4").model_copy(update={"benchmark": benchmark}), HOST, facts("x86_64"), told.append)
    return told


def test_a_host_that_stands_in_for_a_board_says_that_threads_wait_for_each_other() -> None:
    cores = len(cpus_here())
    assert [line.partition(",")[0] for line in on_host(2 * cores)] == [f"benchmark.threads is {2 * cores}"]
    assert on_host(cores) == []


def test_a_host_that_stands_in_for_a_board_refuses_far_more_threads_than_it_has_cores() -> None:
    cores = len(cpus_here())
    with pytest.raises(ConfigError, match=f"benchmark.threads is {32 * cores}, and this host has {cores} core"):
        on_host(32 * cores)
