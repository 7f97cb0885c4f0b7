"""The emulated device with programs of a few instructions, whose counts are known by hand."""

import os
import subprocess
from pathlib import Path

import pytest

from mobilekd.errors import ConfigError, DeviceError, MissingToolError
from mobilekd.transports import qemu
from mobilekd.transports.qemu import Counts, Qemu
from tests.device.tools import need

MARK = "mov x8, #0x4b44\n movk x8, #0x4d, lsl 16\n"
REGION = f"""
.arch armv8.6-a
.global _start
_start:
  sub sp, sp, #256
  {MARK}
  mov x0, #1
  mov x1, #0
  svc #0
  /* 6 loads */
  ldr x2, [sp]
  ldp x2, x3, [sp]
  ldr q1, [sp]
  ld1 {{v0.16b}}, [sp]
  ldrsb w2, [sp, #1]
  ldaxr x2, [sp]
  /* 6 stores, one of them an atomic addition */
  str x2, [sp, #8]
  stp x2, x3, [sp]
  str q1, [sp, #16]
  st1 {{v0.16b}}, [sp]
  stxr w5, x2, [sp]
  ldadd x2, x3, [sp]
  /* 3 SIMD and floating point */
  add v0.4s, v1.4s, v2.4s
  fmadd d0, d1, d2, d3
  mul v0.8h, v1.8h, v2.8h
  /* 4 dot products */
  sdot v0.4s, v1.16b, v2.16b
  udot v0.4s, v1.16b, v2.4b[1]
  usdot v0.4s, v1.16b, v2.16b
  sudot v0.4s, v1.16b, v2.4b[3]
  /* 3 matrix products */
  smmla v0.4s, v1.16b, v2.16b
  ummla v0.4s, v1.16b, v2.16b
  usmmla v0.4s, v1.16b, v2.16b
  /* 9 branches: 5 turns of the loop, a call to the next line, two not taken, one by register; others: 1 + 2 * 5 + 3 */
  mov x4, #5
1: sub x4, x4, #1
  nop
  cbnz x4, 1b
  bl 2f
2: cmp x4, #1
  b.eq 3f
  tbnz x4, #0, 3f
  prfm pldl1keep, [sp]
  adr x6, 3f
  br x6
  /* 4 others */
3: mov x0, #2
  {MARK}
  svc #0
  mov x8, #93
  mov x0, #42
  svc #0
"""
LOOP = ".global _start\n_start: b _start\n"
STREAMS = """
.global _start
_start:
  mov x8, #64
  mov x0, #2
  adr x1, text
  mov x2, #3
  svc #0
  mov x0, #0
  ldr x0, [x0]
text: .ascii "hey"
"""


@pytest.fixture(scope="module")
def state(tmp_path_factory):
    return tmp_path_factory.mktemp("state")


@pytest.fixture
def device(state):
    need("qemu-aarch64")
    with Qemu(state, "armv8.6") as one:
        yield one


@pytest.fixture
def program(tmp_path):
    need("aarch64-linux-gnu-gcc")

    def assemble(text):
        (tmp_path / "program.s").write_text(text, encoding="ascii")
        argv = ["aarch64-linux-gnu-gcc", "-nostdlib", "-static", "-o", "program", "program.s"]
        subprocess.run(argv, cwd=tmp_path, check=True)
        return {"program": tmp_path / "program"}

    return assemble


def test_counts_of_a_region_are_those_worked_by_hand(device, program):
    device.push(program(REGION))

    done, counts = device.run_counted(["./program"], timeout_s=60)

    assert done.returncode == 42
    assert counts == (Counts(total=49, loads=6, stores=6, simd=3, dot_product=4, i8mm=3, branches=9),)


def test_state_folder_may_be_relative_and_have_a_comma_in_its_name(program, tmp_path, monkeypatch):
    need("qemu-aarch64")
    monkeypatch.chdir(tmp_path)

    with Qemu(Path("a,b"), "armv8.6") as device:
        device.push(program(REGION))
        assert [one.total for one in device.run_counted(["./program"], timeout_s=60)[1]] == [49]


def test_program_without_marks_has_no_counts(device, program):
    device.push(program(STREAMS))

    assert device.run_counted(["./program"], timeout_s=60)[1] == ()


def test_signal_of_the_guest_is_128_and_its_number(device, program):
    device.push(program(STREAMS))

    done = device.run(["./program"], timeout_s=60)

    assert done.returncode == 128 + 11
    assert done.stderr.startswith("hey")


def test_endless_program_is_ended(device, program):
    device.push(program(LOOP))

    with pytest.raises(DeviceError, match=r"\./program ran past 1 s"):
        device.run(["./program"], timeout_s=1)


@pytest.mark.parametrize("name", ["./absent", "uname"])
def test_programs_of_this_host_are_not_on_the_device(name, device):
    assert device.run([name], timeout_s=60).returncode == 127


def test_two_uses_at_once_have_folders_of_their_own(state, device, tmp_path):
    (tmp_path / "a").write_text("a", encoding="ascii")
    device.push({"a": tmp_path / "a"})

    with Qemu(state, "a53") as other, pytest.raises(DeviceError, match="no file a"):
        other.pull("a", tmp_path / "b")


def test_facts_name_the_cpu_and_the_emulator(device):
    facts = device.facts()

    assert facts.name.startswith("emulated max,sme=off,sve=off (qemu ")
    assert (facts.machine, "i8mm" in facts.features) == ("aarch64", True)


def test_qemu_without_plugins_is_told_apart(tmp_path, monkeypatch):
    fake = tmp_path / "qemu-aarch64"
    fake.write_text("#!/bin/sh\necho 'qemu-aarch64 version 10.0.2'\n", encoding="ascii")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    with pytest.raises(MissingToolError, match=r"qemu-aarch64 10\.0\.2 takes no plug-ins"):
        qemu.need_plugins()


def test_missing_qemu_names_the_package(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(MissingToolError) as caught:
        Qemu(tmp_path).__enter__()

    assert caught.value.hint == "apt-get install qemu-user"


def test_unknown_cpu_is_an_error_before_anything_is_made(tmp_path):
    with pytest.raises(ConfigError, match="no CPU model 'pentium'"):
        Qemu(tmp_path, "pentium")
