"""What a device shows of its state: governor, frequencies, temperatures and load, from one script for any POSIX shell.

`parse_state` reads what STATE_SCRIPT printed on the device; `worries` says what makes a measurement doubtful, and
`fastest_khz` and `hottest_celsius` are the evidence of throttling. What a device does not show is absent, not guessed.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

# One line key=value for each thing that can be read; no program is started, `read` and `echo` are the shell's own.
# $1 is a folder that stands for the root of the file system. `read` fails at a last line without a newline, but has it.
STATE_SCRIPT = """\
root=${1-}
show() {
  value=
  { IFS= read -r value < "$2"; } 2>/dev/null
  [ -z "$value" ] || echo "$1=$value"
}
for core in "$root"/sys/devices/system/cpu/cpu[0-9]*; do
  show "${core##*/}.governor" "$core/cpufreq/scaling_governor"
  show "${core##*/}.cur_khz" "$core/cpufreq/scaling_cur_freq"
  show "${core##*/}.max_khz" "$core/cpufreq/scaling_max_freq"
  show "${core##*/}.hardware_max_khz" "$core/cpufreq/cpuinfo_max_freq"
done
for zone in "$root"/sys/class/thermal/thermal_zone[0-9]*; do
  show "${zone##*/}.type" "$zone/type"
  show "${zone##*/}.temp" "$zone/temp"
done
show online "$root/sys/devices/system/cpu/online"
show loadavg "$root/proc/loadavg"
exit 0
"""

_LINE = re.compile(r"(cpu\d+|thermal_zone\d+)\.(\w+)=(.*)")
_RISE_CELSIUS = 10.0
_HOT_CELSIUS = 70.0
_SHOWN_CELSIUS = (-40.0, 150.0)  # a zone that is switched off shows -274 or another impossible figure
_BUSY_SHARE = 0.1  # of the cores
_BUSY_LEAST = 0.5
_OVERLOADED = 1.5
"""Load a core from which every run waits for others; a benchmark on all cores leaves a load of 1 a core behind."""
_FREQUENCY_FELL = 0.95


@dataclass(frozen=True, slots=True)
class CoreState:
    """One core with frequency scaling; frequencies in kHz, None where the device does not show them.

    Attributes:
        index: N of /sys/devices/system/cpu/cpuN.
        governor: As "performance" or "schedutil"; empty where it is not shown.
        cur_khz: Frequency now.
        max_khz: Limit that is set now; a thermal driver lowers it.
        hardware_max_khz: What the core can do.
    """

    index: int
    governor: str
    cur_khz: int | None
    max_khz: int | None
    hardware_max_khz: int | None


@dataclass(frozen=True, slots=True)
class ThermalZone:
    """One sensor, as the device names it; in thousandths of a degree Celsius."""

    name: str
    kind: str
    millicelsius: int


@dataclass(frozen=True, slots=True)
class DeviceState:
    """What a device showed at one moment.

    Attributes:
        cores: Those with frequency scaling, by index; empty on most virtual machines.
        zones: Sensors with a possible temperature.
        online: CPUs that are online; None where it is not shown.
        load: Load average of the last minute; None where it is not shown.
    """

    cores: tuple[CoreState, ...] = ()
    zones: tuple[ThermalZone, ...] = ()
    online: int | None = None
    load: float | None = None

    @property
    def fastest_khz(self) -> int | None:
        """Return the present frequency of the fastest core."""
        return max((core.cur_khz for core in self.cores if core.cur_khz is not None), default=None)

    @property
    def hottest_celsius(self) -> float | None:
        """Return the temperature of the hottest sensor."""
        return max((zone.millicelsius / 1000 for zone in self.zones), default=None)


def parse_state(text: str) -> DeviceState:
    """Return what STATE_SCRIPT printed; lines of another form and values that are no number are left out.

    Example:
        >>> parse_state("loadavg=0.42 0.30 0.20 1/99 7").load
        0.42
    """
    parts: dict[str, dict[str, str]] = {}
    whole: dict[str, str] = {}
    for line in text.splitlines():
        if found := _LINE.fullmatch(line.strip()):
            parts.setdefault(found[1], {})[found[2]] = found[3].strip()
        else:
            key, _, value = line.strip().partition("=")
            whole[key] = value
    numbered = sorted(parts, key=lambda name: int(re.sub(r"\D", "", name)))
    return DeviceState(
        cores=tuple(_core(name, parts[name]) for name in numbered if name.startswith("cpu")),
        zones=tuple(zone for name in numbered if name.startswith("thermal") for zone in _zones(name, parts[name])),
        online=_online(whole.get("online", "")),
        load=_load(whole.get("loadavg", "")),
    )


def worries(before: DeviceState, after: DeviceState) -> tuple[str, ...]:
    """Return what makes a measurement between two states doubtful: one sentence each, with what to do.

    A device that shows nothing gives none: this is no proof that it was at rest.
    """
    found = (_governors(before), _frequency(before, after), _temperature(before, after), _load_before(before))
    return tuple(sentence for sentences in (*found, _cores_lost(before, after)) for sentence in sentences)


def capped(before: DeviceState, cores: Sequence[int] = (), share: float = _FREQUENCY_FELL) -> str:
    """Return that a core is held below this share of what it can do, and what to do; empty where none is.

    Args:
        before: The state before the run.
        cores: Look at these alone; empty means all.
        share: 1 finds any cap.
    """
    found = [core for core in before.cores if core.max_khz and core.max_khz < share * (core.hardware_max_khz or 0)]
    looked_at = [core for core in found if not cores or core.index in cores]
    if not looked_at:
        return ""
    core = min(looked_at, key=lambda one: (one.max_khz or 0) / (one.hardware_max_khz or 1))
    return (
        f"cpu{core.index} was held at {_ghz(core.max_khz)} before the run, "
        f"it can do {_ghz(core.hardware_max_khz)}: let the device cool down, or raise scaling_max_freq"
    )


def hot(before: DeviceState) -> str:
    """Return that the device was hot before the run, and what to do; empty where it was not."""
    celsius = before.hottest_celsius
    if celsius is None or celsius < _HOT_CELSIUS:
        return ""
    return f"the device was at {celsius:.0f} °C before the run: let it cool down first"


def overloaded(before: DeviceState) -> str:
    """Return that the device had far more work than cores before the run, and what to do; empty where it had not."""
    return _loaded(before, lambda cores: _OVERLOADED * cores)


def _governors(state: DeviceState) -> Iterator[str]:
    slow = sorted({core.governor for core in state.cores} - {"", "performance"})
    for governor in slow:
        cores = ", ".join(f"cpu{core.index}" for core in state.cores if core.governor == governor)
        yield (
            f"governor is '{governor}', not 'performance', on {cores}: as root, for each core, "
            "echo performance > /sys/devices/system/cpu/cpuN/cpufreq/scaling_governor"
        )


def _frequency(before: DeviceState, after: DeviceState) -> Iterator[str]:
    if cap := capped(before, share=1.0):
        yield cap
    first, last = before.fastest_khz, after.fastest_khz
    if first and last and last < first * _FREQUENCY_FELL:
        yield f"the fastest core fell from {_ghz(first)} to {_ghz(last)}: pin the frequency, or cool the device"


def _temperature(before: DeviceState, after: DeviceState) -> Iterator[str]:
    earlier = {zone.name: zone.millicelsius / 1000 for zone in before.zones}
    both = [(zone, earlier[zone.name], zone.millicelsius / 1000) for zone in after.zones if zone.name in earlier]
    if heat := hot(before):
        yield heat
    if both:
        zone, first, last = max(both, key=lambda one: one[2] - one[1])
        if last - first >= _RISE_CELSIUS:
            name = f" of {zone.kind}" if zone.kind else ""
            yield f"temperature{name} rose from {first:.0f} to {last:.0f} °C: give it a fan, or a pause before each run"


def _load_before(state: DeviceState) -> Iterator[str]:
    if load := _loaded(state, lambda cores: max(_BUSY_LEAST, _BUSY_SHARE * cores)):
        yield load


def _loaded(state: DeviceState, most: Callable[[int], float]) -> str:
    cores = state.online or len(state.cores)
    if state.load is None or not cores or state.load <= most(cores):
        return ""
    return f"load average {state.load:.1f} on {cores} cores before the run: end other work, then wait a minute"


def _cores_lost(before: DeviceState, after: DeviceState) -> Iterator[str]:
    if before.online and after.online and after.online < before.online:
        lost = before.online - after.online
        yield f"{lost} of {before.online} cores went offline: cool the device, or hold them online"


def _core(name: str, values: Mapping[str, str]) -> CoreState:
    figures = (_whole(values.get(key, "")) for key in ("cur_khz", "max_khz", "hardware_max_khz"))
    return CoreState(int(name.removeprefix("cpu")), values.get("governor", ""), *figures)


def _zones(name: str, values: Mapping[str, str]) -> Iterator[ThermalZone]:
    shown = _whole(values.get("temp", ""))
    if shown is None:
        return
    # Some vendors' kernels show whole degrees; no sensor in use is within one degree of zero.
    millicelsius = shown if abs(shown) >= 1000 else shown * 1000
    low, high = _SHOWN_CELSIUS
    if low * 1000 <= millicelsius <= high * 1000:
        yield ThermalZone(name, values.get("type", ""), millicelsius)


def _online(text: str) -> int | None:
    """Return the number of CPUs in a list as "0-3,6"."""
    if not re.fullmatch(r"\d+(-\d+)?(,\d+(-\d+)?)*", text):
        return None
    spans = [span.partition("-") for span in text.split(",")]
    return sum(int(last or first) - int(first) + 1 for first, _, last in spans)


def _load(text: str) -> float | None:
    found = re.match(r"\d+(\.\d+)?(?=\s|$)", text)
    return float(found[0]) if found else None


def _whole(text: str) -> int | None:
    return int(text) if re.fullmatch(r"-?\d{1,12}", text) else None


def _ghz(khz: int | None) -> str:
    return f"{(khz or 0) / 1e6:.1f} GHz"
