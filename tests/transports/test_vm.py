"""The virtual machine as a device: its clock, its faults, its end."""

import os
import signal
import threading
from pathlib import Path

import pytest

from mobilekd.errors import ConfigError, DeviceError, MissingToolError
from mobilekd.transports.vm import Vm

LOOP = "i=0; while [ $i -lt 3000 ]; do i=$((i+1)); done; cat /proc/$$/schedstat"  # first word: nanoseconds on the CPU


def qemu_of(folder: Path) -> int:
    """The process whose console is in this folder."""
    return next(
        int(path.parent.name)
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if path.exists() and path.read_bytes().startswith(b"qemu-system") and os.fsencode(folder) in path.read_bytes()
    )


def test_the_guests_clock_counts_instructions_that_repeat(emulators, machine):
    with Vm(state=emulators, memory_mib=512, via="ssh", icount=True) as vm:
        done = vm.run(["sh", "-c", f"for turn in 1 2 3 4 5 6; do sh -c '{LOOP}'; done"], timeout_s=120)
    counts = [int(line.split()[0]) for line in done.stdout.splitlines()]
    assert min(counts[:3]) == pytest.approx(min(counts[3:]), rel=0.002)


def test_a_machine_that_ends_in_the_middle_of_a_run_leaves_it_incomplete(emulators):
    with Vm(state=emulators, memory_mib=512) as vm:
        qemu = qemu_of(vm.machine.console.parent)
        threading.Timer(1.0, os.kill, (qemu, signal.SIGKILL)).start()
        with pytest.raises(DeviceError, match="the run is incomplete"):
            vm.run(["sleep", "60"], timeout_s=60)


def test_a_boot_that_fails_shows_what_qemu_said(emulators):
    with pytest.raises(DeviceError, match=r"ended while it booted(.|\n)*no-such-cpu"):
        Vm("no-such-cpu", state=emulators).__enter__()


def test_a_machine_whose_parts_are_not_made_is_told(tmp_path):
    with pytest.raises(MissingToolError, match="parts are not on this machine"):
        Vm(state=tmp_path).__enter__()


def test_counting_on_several_cores_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="one core, not 4"):
        Vm(state=tmp_path, cores=4, icount=True)
