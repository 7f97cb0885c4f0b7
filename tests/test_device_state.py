import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilekd.device_state import STATE_SCRIPT, CoreState, DeviceState, ThermalZone, parse_state, worries

PHONE = {
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "schedutil\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "1800000\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_max_freq": "1800000\n",
    "sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq": "2400000\n",
    "sys/devices/system/cpu/cpu10/cpufreq/scaling_governor": "performance\n",
    "sys/devices/system/cpu/cpufreq/none": "\n",
    "sys/devices/system/cpu/online": "0-3,10\n",
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
    "sys/class/thermal/thermal_zone0/temp": "41234\n",
    "sys/class/thermal/thermal_zone1/type": "switched off\n",
    "sys/class/thermal/thermal_zone1/temp": "-274000\n",
    "sys/class/thermal/thermal_zone2/temp": "38",
    "proc/loadavg": "3.25 1.00 0.50 2/345 6789\n",
}


def read(shell: list[str], root: str) -> str:
    done = subprocess.run([*shell, "-c", STATE_SCRIPT, "state", root], capture_output=True, text=True, check=True)
    assert not done.stderr
    return done.stdout


@pytest.fixture
def phone(tmp_path: Path) -> str:
    for name, text in PHONE.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="ascii")
    return str(tmp_path)


def test_the_script_and_the_parser_read_a_phone(phone: str) -> None:
    assert parse_state(read(["sh"], phone)) == DeviceState(
        cores=(
            CoreState(0, "schedutil", 1_800_000, 1_800_000, 2_400_000),
            CoreState(10, "performance", None, None, None),
        ),
        zones=(ThermalZone("thermal_zone0", "cpu-thermal", 41_234), ThermalZone("thermal_zone2", "", 38_000)),
        online=5,
        load=3.25,
    )


def test_bash_prints_what_sh_prints(phone: str) -> None:
    assert read(["bash"], phone) == read(["sh"], phone)


def test_the_script_prints_nothing_on_a_system_that_shows_nothing(tmp_path: Path) -> None:
    assert read(["sh"], str(tmp_path)) == ""


def test_this_host_shows_its_load() -> None:
    assert parse_state(read(["sh"], "")).load is not None


@given(st.text())
def test_any_text_is_read_line_by_line(text: str) -> None:
    assert parse_state(f"{text}\nloadavg=0.42 0.30 0.20 1/99 7").load == 0.42


@given(st.sampled_from(["cpu0.cur_khz", "thermal_zone0.temp", "online", "loadavg"]), st.text(max_size=8))
def test_a_value_of_any_form_leaves_the_other_lines(key: str, value: str) -> None:
    assert parse_state(f"{key}={value}\ncpu1.governor=powersave").cores[-1].governor == "powersave"


@pytest.mark.parametrize("value", ["<unsupported>", "", "0x10", "1e6"])
def test_a_frequency_that_is_no_number_is_absent(value: str) -> None:
    assert parse_state(f"cpu0.cur_khz={value}\ncpu0.governor=x").cores[0].cur_khz is None


def core(governor: str = "performance", cur_khz: int = 2_400_000, max_khz: int = 2_400_000) -> CoreState:
    return CoreState(0, governor, cur_khz, max_khz, 2_400_000)


def at(celsius: int) -> DeviceState:
    return DeviceState(zones=(ThermalZone("thermal_zone0", "cpu-thermal", celsius * 1000),))


REST = DeviceState((core(),), at(41).zones, online=4, load=0.1)


def test_a_device_at_rest_gives_no_worry() -> None:
    assert worries(REST, REST) == ()


def test_a_device_that_shows_nothing_gives_no_worry() -> None:
    assert worries(DeviceState(), DeviceState()) == ()


@pytest.mark.parametrize(
    ("before", "after", "start"),
    [
        (DeviceState((core("powersave"),)), DeviceState(), "governor is 'powersave', not 'performance', on cpu0: "),
        (
            DeviceState((core(max_khz=1_800_000),)),
            DeviceState(),
            "cpu0 was held at 1.8 GHz before the run, it can do 2.4",
        ),
        (
            DeviceState((core(),)),
            DeviceState((core(cur_khz=1_800_000),)),
            "the fastest core fell from 2.4 GHz to 1.8 GHz",
        ),
        (at(41), at(78), "temperature of cpu-thermal rose from 41 to 78 °C"),
        (at(72), at(72), "the device was at 72 °C before the run"),
        (DeviceState(online=4, load=3.2), DeviceState(), "load average 3.2 on 4 cores before the run"),
        (DeviceState(online=8), DeviceState(online=6), "2 of 8 cores went offline"),
    ],
)
def test_a_worry_is_a_sentence_with_what_to_do(before: DeviceState, after: DeviceState, start: str) -> None:
    (sentence,) = worries(before, after)
    assert sentence.startswith(start)
    assert ": " in sentence
