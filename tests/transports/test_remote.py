"""What adb and ssh promise alike, against adbd and sshd in one virtual machine."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mobilekd.errors import ConfigError, DeviceError
from mobilekd.transport import Patience
from mobilekd.transports import _shell

ALL_BYTES = bytes(range(256)) * 1000
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30)
LIMIT_S = 60.0


def put(path: Path, content: bytes, permissions: int = 0o644) -> Path:
    path.write_bytes(content)
    path.chmod(permissions)
    return path


def shell(device, script: str, timeout_s: float = LIMIT_S):
    return device.run(["sh", "-c", script], timeout_s=timeout_s)


@pytest.mark.parametrize("code", [0, 7, 255])
def test_the_exit_code_is_the_commands_own(device, code):
    assert shell(device, f"exit {code}").returncode == code


def test_a_signal_comes_back_as_128_and_its_number(device):
    assert shell(device, "kill -TERM $$").returncode == 128 + 15


def test_a_missing_program_ends_with_127(device):
    assert device.run(["./no-such-program"], timeout_s=LIMIT_S).returncode == 127


def test_stdout_and_stderr_are_told_apart(device):
    done = shell(device, "printf out; printf err >&2")
    assert (done.stdout, done.stderr) == ("out", "err")


def test_the_environment_reaches_the_command(device):
    assert device.run(["sh", "-c", 'printf %s "$A"'], timeout_s=LIMIT_S, env={"A": "x 'y' $z"}).stdout == "x 'y' $z"


def test_a_command_finds_no_input_to_read(device):
    assert device.run(["cat"], timeout_s=LIMIT_S).stdout == ""


@settings(max_examples=5)
@example(words=["", " ", "-n", "--", "'", '"', "a'\"b", "$(id)", "`id`", "\\", "*", "~", "a\nb", "\r\n", "é 木 🙂"])
@given(words=st.lists(TEXT, min_size=1, max_size=60))
def test_any_text_as_an_argument_comes_back_unchanged(device, words):
    done = device.run(["sh", "-c", 'for word do printf "%s\\1" "$word"; done', "sh", *words], timeout_s=LIMIT_S)
    assert done.stdout == "".join(f"{word}\1" for word in words)


def test_the_same_bytes_come_back(device, tmp_path):
    device.push({"all": put(tmp_path / "all", ALL_BYTES)})
    device.pull("all", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == ALL_BYTES


def test_files_keep_their_odd_names(device, tmp_path):
    names = ["two words", "it's", 'a"b', "$HOME", "a;b", "-rf", "木é", "in/a folder/x", "a\nb", "*", "\\"]
    device.push({name: put(tmp_path / f"{index}", f"{index} ".encode()) for index, name in enumerate(names)})
    done = device.run(["sh", "-c", 'for name do cat "./$name"; done', "sh", *names], timeout_s=LIMIT_S)
    assert done.stdout == "0 1 2 3 4 5 6 7 8 9 10 "


def test_a_file_with_an_odd_name_comes_back(device, tmp_path):
    device.push({"in/a 'b\" $c": put(tmp_path / "x", b"content")})
    device.pull("in/a 'b\" $c", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == b"content"


def test_a_source_with_an_odd_name_is_pushed(device, tmp_path):
    assert device.push({"plain": put(tmp_path / 'it\'s a "木" $x', b"odd" + os.urandom(8))}) == 11


@pytest.mark.parametrize("name", ["/etc/passwd", "../up", "", "a/../../b"])
def test_a_name_outside_of_our_folder_is_refused(device, tmp_path, name):
    with pytest.raises(ConfigError, match="can't be a file's name"):
        device.push({name: put(tmp_path / "x", b"")})


def test_a_second_push_sends_nothing(device, tmp_path):
    files = {"a": put(tmp_path / "a", os.urandom(1000)), "b": put(tmp_path / "b", os.urandom(10))}
    assert (device.push(files), device.push(files)) == (1010, 0)


def test_a_push_finds_what_an_earlier_use_left(reach, tmp_path):
    files = {"a": put(tmp_path / "a", os.urandom(1000))}
    with reach() as device:
        device.push(files)
    with reach() as device:
        assert device.push(files) == 0


def test_only_what_changed_is_sent(device, tmp_path):
    files = {"a": put(tmp_path / "a", os.urandom(1000)), "b": put(tmp_path / "b", os.urandom(10))}
    device.push(files)
    put(tmp_path / "b", os.urandom(20))
    assert device.push(files) == 20


def test_a_pushed_file_that_the_device_changed_is_sent_again(device, tmp_path):
    files = {"a": put(tmp_path / "a", os.urandom(1000))}
    device.push(files)
    shell(device, "printf X | dd of=a conv=notrunc")
    assert device.push(files) == 1000


def test_an_executable_file_runs(device, tmp_path):
    device.push({"go": put(tmp_path / "go", b"#!/bin/sh\necho went\n", 0o755)})
    assert device.run(["./go"], timeout_s=LIMIT_S).stdout == "went\n"


def test_a_plain_file_with_the_same_bytes_does_not_run(device, tmp_path):
    device.push({"go": put(tmp_path / "go", b"#!/bin/sh\necho went\n", 0o755)})
    device.push({"stay": put(tmp_path / "stay", b"#!/bin/sh\necho went\n", 0o644)})
    assert shell(device, "[ -x go ] && [ ! -x stay ]").returncode == 0


def test_a_file_that_is_not_there_is_named(device, tmp_path):
    with pytest.raises(DeviceError, match=r"has no file 'result\.bin'"):
        device.pull("result.bin", tmp_path / "back")


def test_a_failed_pull_leaves_nothing(device, tmp_path):
    with pytest.raises(DeviceError):
        device.pull("result.bin", tmp_path / "back")
    assert list(tmp_path.glob("*back*")) == []


def test_leaving_removes_the_working_folder_and_keeps_the_store(reach, device, tmp_path):
    with reach("/data/local/tmp/left") as own:
        own.push({"a": put(tmp_path / "a", b"kept")})
    assert shell(device, "cd /data/local/tmp/left && ls").stdout == "store\n"


def test_a_command_that_runs_past_its_time_is_ended_on_the_device(device):
    with pytest.raises(DeviceError, match="it was ended there"):
        shell(device, "sleep 7331 & sleep 7331", timeout_s=5.0)
    assert shell(device, "ps | grep -c '[s]leep 7331'").stdout == "0\n"


def test_a_command_that_would_begin_after_its_end_does_not_begin(device):
    assert device._end("pid-late") == "it was ended there"
    device._ask(_shell.run(device._job_folder, "pid-late", ["touch", "begun"], {}), "the command began late")
    assert shell(device, "[ -e begun ]").returncode == 1


def test_the_facts_are_those_of_the_machine(device, machine):
    facts = device.facts()
    assert (facts.machine, facts.cores, "asimddp" in facts.features) == ("aarch64", machine.spec.cores, True)


def test_the_memory_is_that_of_the_machine(device):
    assert 400 << 20 < (device.facts().memory_bytes or 0) < 512 << 20


def test_a_second_use_on_this_host_is_refused_with_the_holder(reach):
    with reach(), pytest.raises(DeviceError, match=f"held by process {os.getpid()} on"), reach():
        pass


def leave_lock(device, folder: str, owner: str) -> str:
    """Make the lock of another process in a folder of the machine; the folder."""
    shell(device, f"mkdir -p {folder}/lock; echo '{owner}' >{folder}/lock/owner")
    return folder


def test_a_holder_on_another_host_is_named(reach, device):
    folder = leave_lock(device, "/data/local/tmp/held", "otherhost 4711 1764000000")
    with pytest.raises(DeviceError, match="held by process 4711 on otherhost since 2025-11-24") as caught:
        reach(folder).__enter__()
    assert f"rm -r {folder}/lock" in caught.value.hint


def test_a_holder_on_another_host_is_waited_for(reach, device, monkeypatch):
    monkeypatch.setattr("mobilekd.transports._remote.DEVICE_STEP_S", 0.5)
    folder = leave_lock(device, "/data/local/tmp/ending", "otherhost 4711 1764000000")

    def end_it(line):
        told.append(line)
        shell(device, f"rm -r {folder}/lock")

    told: list[str] = []
    with reach(folder, Patience(limit_s=60, say=end_it)) as own:
        assert shell(own, "exit 3").returncode == 3
    assert [line.partition(" is held by ")[2].partition(" since ")[0] for line in told] == ["process 4711 on otherhost"]


def test_the_lock_of_a_dead_process_of_this_host_is_taken_over(reach, device):
    ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    folder = leave_lock(device, "/data/local/tmp/stale", f"{platform.node()} {int(ended.stdout)} 1764000000")
    with reach(folder) as own:
        assert shell(own, "exit 3").returncode == 3


def test_the_lock_of_a_living_process_of_this_host_is_respected(reach, device):
    folder = leave_lock(device, "/data/local/tmp/live", f"{platform.node()} {os.getppid()} 1764000000")
    with pytest.raises(DeviceError, match=f"held by process {os.getppid()} on"):
        reach(folder).__enter__()


@pytest.fixture
def tiny(device) -> str:
    """A folder on a file system of the machine with 1 MiB and 11 files."""
    script = "cd /data/local/tmp && mkdir -p tiny; umount tiny; mount -t tmpfs -o size=1m,nr_inodes=11 tmpfs tiny"
    assert shell(device, script).returncode == 0
    return "/data/local/tmp/tiny/ours"


def six_files(folder: Path) -> dict[str, Path]:
    return {f"f{index}": put(folder / f"f{index}", os.urandom(100)) for index in range(6)}


def test_a_full_disk_is_told_with_needed_and_free_bytes(reach, tiny, tmp_path):
    told = pytest.raises(DeviceError, match=r"3,000,000 bytes needed, 1,0\d\d,\d{3} bytes free")
    with reach(tiny) as own, told:
        own.push({"big": put(tmp_path / "big", bytes(3_000_000))})


def test_a_disk_that_fills_up_while_files_are_sent_is_told(reach, tiny, tmp_path):
    with reach(tiny) as own, pytest.raises(DeviceError, match="has no space: 600 bytes needed"):
        own.push(six_files(tmp_path))


def test_a_disk_that_fills_up_keeps_nothing_half_written(reach, tiny, tmp_path):
    with reach(tiny) as own:
        with pytest.raises(DeviceError):
            own.push(six_files(tmp_path))
        assert shell(own, "find ../.. -name '*[0-9a-f][0-9a-f][0-9a-f]*' ! -name 'pid-*' -type f").stdout == ""


def test_a_device_that_lost_our_folder_gives_no_exit_code(reach, device):
    with reach("/data/local/tmp/wiped") as own:
        shell(device, "rm -rf /data/local/tmp/wiped/job-*")
        with pytest.raises(DeviceError, match="the run is incomplete"):
            own.run(["true"], timeout_s=LIMIT_S)


def cut(reach, kind: str, seconds: str) -> None:
    """Run a command that ends the daemon its own connection needs; the machine starts it again."""
    daemon = {"adb": "adbd", "ssh": "dropbear"}[kind]
    with reach() as own:
        shell(own, f"(sleep 0.3; killall {daemon}) & sleep {seconds}")


def test_a_connection_cut_in_the_middle_of_a_run_leaves_it_incomplete(reach, kind):
    with pytest.raises(DeviceError, match="went away while sh ran: the run is incomplete"):
        cut(reach, kind, "7332")
    with reach():
        pass


def test_a_command_that_a_cut_connection_left_is_ended_by_the_next_use(reach, kind):
    with pytest.raises(DeviceError):
        cut(reach, kind, "7333")
    with reach() as own:
        assert shell(own, "ps | grep -c '[s]leep 7333'").stdout == "0\n"
