"""Instructions counted by the clock of a virtual machine, against those that the plug-in of qemu-user counts."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mobilekd.benchmarking import emulated
from mobilekd.benchmarking.emulated import Counted
from mobilekd.benchmarking.measure import Bench, Task
from mobilekd.benchmarking.place import Place, choose, open_place
from mobilekd.benchmarking.running import Running, prepare
from mobilekd.cache import Cache
from mobilekd.device import guest, runner, runtimes
from mobilekd.errors import DeviceError, MissingToolError
from mobilekd.measurement import Measured
from mobilekd.profile import Deployment, DeviceSettings, Profile, Target
from mobilekd.transport import Transport
from mobilekd.transports.qemu import need_plugins
from mobilekd.transports.vm import Vm
from tests.backends.tiny import images
from tests.device import models
from tests.device.tools import need
from tests.toys import Silent

CPU = "cortex-a76"
GRANULE = 16
"""The clock's step, in instructions: that of a timer of 62.5 MHz."""
BETWEEN_READINGS = 600
"""What the clock also counts, whatever the model: reading it, and the kernel's part of a runtime's system calls."""


def profile(emulator: str = "auto", place: str = "emulator") -> Profile:
    device = DeviceSettings(place=place, emulator=emulator, cpu=CPU)
    target = Target(os="android", abi="arm64-v8a")
    return Profile(name="small", title="Small", target=target, deploy=(Deployment(backend="tflite"),), device=device)


def measured(model: models.Model) -> Measured:
    return Measured(model.facts.name, model.file, model.facts)


@dataclass(frozen=True)
class Found:
    """What one use of an emulator gave, by backend."""

    answers: Mapping[str, np.ndarray]
    counted: Mapping[str, Counted]


@pytest.fixture(scope="module")
def state() -> Path:
    """The user's own folder for devices: the machine and the runtimes are made there once, not once a session."""
    need("qemu-system-aarch64", "qemu-aarch64", "adb", "ssh-keygen", "apt-get", "aarch64-linux-gnu-gcc")
    folder = Cache.default_root() / "devices"
    try:
        need_plugins()
        guest.prepare(folder, lambda _: None)
        runner.kit("aarch64", runtimes.backends(), folder, models.Silent())
    except MissingToolError as cause:
        pytest.skip(f"{cause.message} ({cause.hint})")
    return folder


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, models.Model]:
    folder = tmp_path_factory.mktemp("small")
    return {backend: models.make(backend, folder / backend) for backend in runtimes.backends()}


@pytest.fixture(scope="module")
def run_on(small, state, tmp_path_factory) -> Callable[[str], Found]:
    def run(emulator: str) -> Found:
        scratch = tmp_path_factory.mktemp(emulator)
        wanted = profile(emulator)
        with open_place(choose(wanted), wanted, state) as transport:
            running = on(transport, state, scratch)
            jobs = {backend: running.job(measured(model), images(models.SAMPLES)) for backend, model in small.items()}
            answers = {backend: running.answers(measured(small[backend]), job) for backend, job in jobs.items()}
            return Found(answers, {backend: emulated.count(running, job) for backend, job in jobs.items()})

    return run


@pytest.fixture(scope="module")
def by_clock(run_on) -> Found:
    return run_on("vm")


@pytest.fixture(scope="module")
def by_plugin(run_on) -> Found:
    return run_on("qemu")


@pytest.fixture(scope="module")
def report(small, state, tmp_path_factory) -> dict[str, Any]:
    """latency.json of the TFLite model, of a boot of its own."""
    wanted = profile("vm")
    bench = Bench(wanted, choose(wanted), state, tmp_path_factory.mktemp("bench"), Silent())
    return bench.measure(Task([measured(small["tflite"])], images(models.SAMPLES), None))


@pytest.fixture
def qemu_without_plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A qemu-aarch64 as Debian builds it since qemu 10, first on PATH; this host's own takes plug-ins."""
    program = tmp_path / "bin" / "qemu-aarch64"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\necho "qemu-aarch64 version 10.0.2"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    return program.parent


def on(transport: Transport, state: Path, scratch: Path) -> Running:
    return prepare(transport, runtimes.backends(), state=state, scratch=scratch, threads=1, cores=(), progress=Silent())


@pytest.mark.parametrize("backend", ["tflite", "onnxruntime", "mnn"])
def test_answers_of_the_machine_are_the_hosts_to_the_bit(backend, by_clock, small):
    np.testing.assert_array_equal(by_clock.answers[backend], small[backend].logits)


@pytest.mark.parametrize("backend", ["tflite", "onnxruntime", "mnn"])
def test_the_clock_and_the_plug_in_count_alike(backend, by_clock, by_plugin):
    expected = pytest.approx(by_plugin.counted[backend].total, rel=0.005, abs=BETWEEN_READINGS)
    assert by_clock.counted[backend].total == expected


def test_two_boots_count_the_same(by_clock, report):
    again = report["rows"][0]["guest_instructions"]["total"]
    assert abs(by_clock.counted["tflite"].total - again) <= GRANULE


def test_the_report_names_the_machine_and_its_clock(report):
    row = report["rows"][0]
    assert report["ran_on"] == f"emulated {CPU} (virtual machine)"
    assert (row["guest_instructions"]["counted_by"], row["guest_instructions"]["classes"]) == ("icount", {})


def test_the_machine_gives_no_time(report):
    row = report["rows"][0]
    assert (row["latency_kind"], "p50_ms" in row, report["samples_ms"]) == ("guest_instructions", False, {})


def test_a_machine_whose_clock_shows_time_is_no_counter(tmp_path):
    running = Running(Vm(state=tmp_path), (), (), tmp_path, 1, ())
    with pytest.raises(DeviceError, match="counts no instructions"):
        emulated.count(running, runner.Job("tflite", "model", ("in",), (), 1))


@pytest.mark.usefixtures("qemu_without_plugins")
def test_where_qemu_user_takes_no_plug_ins_the_machine_counts():
    need("qemu-system-aarch64", "ssh-keygen", "apt-get", "aarch64-linux-gnu-gcc")
    assert choose(profile()) == Place("emulator", "vm", CPU, on_target=False)


def test_where_qemu_user_takes_plug_ins_it_counts(state):
    assert choose(profile()) == Place("emulator", "qemu", CPU, on_target=False)


@pytest.mark.usefixtures("qemu_without_plugins")
def test_qemu_user_without_plug_ins_is_refused_where_it_is_asked_for():
    with pytest.raises(MissingToolError, match="takes no plug-ins") as caught:
        choose(profile("qemu"))
    assert "profile.device.emulator=vm" in caught.value.hint


def test_what_the_machine_lacks_is_told_where_qemu_user_takes_no_plug_ins(qemu_without_plugins, monkeypatch):
    for program in ("apt-get", "dpkg-deb", "sh"):
        (qemu_without_plugins / program).symlink_to(f"/bin/{program}")
    monkeypatch.setenv("PATH", str(qemu_without_plugins))
    with pytest.raises(MissingToolError, match=r"takes no plug-ins(.*)qemu-system-aarch64 is not on PATH") as caught:
        choose(profile())
    assert caught.value.hint == "apt-get install qemu-system-arm"
