"""The virtual machine as a device: its clock, its faults, its end."""

import os
import signal
import subprocess
import threading
from pathlib import Path

import pytest

from mobilekd.errors import ConfigError, DeviceError, MissingToolError
from mobilekd.transports.vm import Vm
from tests.device.tools import need
from tests.processes import command_lines

TWO_MILLION_INSTRUCTIONS = r"""
#include <stdio.h>
#include <time.h>
static long now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000L + now.tv_nsec;
}
int main(void) {
    for (int turn = 0; turn < 10; turn++) {
        long turns = 1000000, start_ns = now_ns();
        __asm__ volatile("1: subs %0, %0, #1\n b.ne 1b" : "+r"(turns) : : "cc");
        printf("%ld\n", now_ns() - start_ns);
    }
}
"""


def qemu_of(folder: Path) -> int:
    """The process whose console is in this folder."""
    return next(
        pid
        for pid, words in command_lines().items()
        if words.startswith(b"qemu-system") and os.fsencode(folder) in words
    )


def test_the_guests_clock_counts_instructions(emulators, machine, tmp_path):
    need("aarch64-linux-gnu-gcc")
    (tmp_path / "loop.c").write_text(TWO_MILLION_INSTRUCTIONS)
    argv = ["aarch64-linux-gnu-gcc", "-O1", "-o", str(tmp_path / "loop"), str(tmp_path / "loop.c")]
    subprocess.run(argv, check=True)
    with Vm(state=emulators, memory_mib=512, via="ssh", icount=True) as vm:
        vm.push({"loop": tmp_path / "loop"})
        done = vm.run(["./loop"], timeout_s=120)
    # The least of ten: a timer's interrupt adds some thousand. Reading the clock adds less than 200.
    assert 2_000_000 <= min(map(int, done.stdout.split())) < 2_000_200


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
