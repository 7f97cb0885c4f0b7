import os
import signal
import subprocess
import sys
import textwrap

import pytest

from mobilekd.errors import DeviceError
from mobilekd.transport import Patience
from mobilekd.transports.local import Local
from tests.device.tools import need
from tests.processes import runs, wait_until

SHELL = "/bin/sh"


@pytest.fixture
def device(tmp_path):
    with Local(tmp_path / "state") as one:
        yield one


def sh(device, script, *, timeout_s=30.0, env=None):
    return device.run([SHELL, "-c", script], timeout_s=timeout_s, env=env)


def written(path, text="text", *, mode=0o644):
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
    return path


def child(root, then, patience="Patience()"):
    """Run Python that holds the local device and then does something."""
    code = (
        "import os\nfrom pathlib import Path\nfrom mobilekd.transport import Patience\n"
        f"from mobilekd.transports.local import Local\nwith Local(Path({str(root)!r}), {patience}) as d:"
    )
    script = f"{code}\n{textwrap.indent(then, '    ')}"
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-c", script], stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def test_file_comes_back_as_it_was_pushed(device, tmp_path):
    device.push({"in": written(tmp_path / "a", "one\n")})

    sh(device, "cat in in > out")
    device.pull("out", tmp_path / "b")

    assert (tmp_path / "b").read_text(encoding="utf-8") == "one\none\n"


def test_same_content_is_sent_once(device, tmp_path):
    first = device.push({"a": written(tmp_path / "a", "12345")})

    assert (first, device.push({"b": written(tmp_path / "b", "12345")})) == (5, 0)


def test_same_content_is_sent_once_over_two_uses(tmp_path):
    source = {"a": written(tmp_path / "a", "12345")}
    with Local(tmp_path / "state") as device:
        device.push(source)
    with Local(tmp_path / "state") as device:
        assert device.push(source) == 0


@pytest.mark.parametrize(("mode", "code"), [(0o755, 0), (0o644, 126)])
def test_program_is_executable_there_when_it_is_here(mode, code, device, tmp_path):
    device.push({"program": written(tmp_path / "program", f"#!{SHELL}\nexit 0\n", mode=mode)})

    assert device.run(["./program"], timeout_s=30).returncode == code


def test_mode_belongs_to_the_push_and_not_to_the_content(device, tmp_path):
    text = f"#!{SHELL}\nexit 3\n"
    device.push({"data": written(tmp_path / "data", text), "program": written(tmp_path / "p", text, mode=0o755)})

    assert device.run(["./program"], timeout_s=30).returncode == 3


def test_pushed_file_can_be_replaced_without_changing_the_stored_one(device, tmp_path):
    source = {"in": written(tmp_path / "a", "old")}
    device.push(source)
    sh(device, "rm in; echo new > in")
    device.push(source)

    assert sh(device, "cat in").stdout == "old"


def test_output_streams_and_exit_code_are_the_commands(device):
    done = sh(device, "echo out; echo err >&2; exit 7")

    assert (done.returncode, done.stdout, done.stderr) == (7, "out\n", "err\n")


def test_signal_is_128_and_its_number(device):
    assert sh(device, "kill -SEGV $$").returncode == 128 + signal.SIGSEGV


@pytest.mark.parametrize("program", ["./absent", "no-such-program-on-path"])
def test_missing_program_is_127_as_from_a_shell(program, device):
    assert device.run([program], timeout_s=30).returncode == 127


def test_environment_is_what_is_given(device, monkeypatch):
    monkeypatch.setenv("LEAKED", "1")

    assert sh(device, 'echo "$GIVEN.$LEAKED"', env={"GIVEN": "2"}).stdout == "2.\n"


def test_command_past_its_time_is_ended_with_its_children(device):
    seconds = f"9{os.getpid()}.3"
    with pytest.raises(DeviceError, match=r"/bin/sh ran past 0\.5 s and was ended"):
        sh(device, f"sleep {seconds} & wait", timeout_s=0.5)

    assert wait_until(lambda: not runs("sleep", seconds))


def test_pull_of_a_file_that_is_not_there_leaves_no_file(device, tmp_path):
    with pytest.raises(DeviceError, match="no file out on the device"):
        device.pull("out", tmp_path / "out")

    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "."])
def test_name_that_leads_out_of_the_folder_is_refused(name, device, tmp_path):
    with pytest.raises(DeviceError, match="no name inside the device's folder"):
        device.push({name: written(tmp_path / "a")})


def test_working_folder_is_gone_after_use(tmp_path):
    with Local(tmp_path / "state") as device:
        sh(device, "echo left > over")

    assert sorted(path.name for path in (tmp_path / "state" / "local").iterdir()) == ["lock", "store"]


def test_a_second_use_in_one_process_is_refused_at_once(tmp_path):
    with Local(tmp_path), pytest.raises(DeviceError, match=rf"^this machine is held by process {os.getpid()} on"):
        Local(tmp_path, Patience(limit_s=1e9)).__enter__()


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the device until a line is written to it."""
    with child(tmp_path, "print('held', flush=True); input()") as process:
        assert process.stdout.readline() == "held\n"
        yield process


def test_a_device_of_another_process_is_waited_for_and_told_once(holder, tmp_path):
    told = []

    def end_it(line):
        told.append(line)
        holder.stdin.close()

    with Local(tmp_path, Patience(limit_s=60, say=end_it)) as device:
        assert sh(device, "echo here").stdout == "here\n"
    assert [line.partition(" on ")[0] for line in told] == [f"this machine is held by process {holder.pid}"]
    assert told[0].endswith(": waiting for it, 60 s at most")


def test_a_device_that_is_not_let_go_in_time_is_refused(holder, tmp_path):
    with pytest.raises(DeviceError, match=rf"held by process {holder.pid} on .*; waited 0\.1 s for it$") as caught:
        Local(tmp_path, Patience(limit_s=0.1)).__enter__()
    holder.stdin.close()
    assert caught.value.code == "MKD-505"


def test_a_wait_ends_by_ctrl_c_and_leaves_no_folder(tmp_path):
    with Local(tmp_path):
        waiting = child(tmp_path, "pass", "Patience(say=lambda line: print(line, flush=True))")
        assert waiting.stdout.readline().startswith(f"this machine is held by process {os.getpid()}")
        waiting.send_signal(signal.SIGINT)
        waiting.communicate(timeout=30)
        assert waiting.returncode == -signal.SIGINT
        assert len(list((tmp_path / "local").glob("work-*"))) == 2


def test_device_can_be_taken_again_after_its_holder_let_go(tmp_path):
    with Local(tmp_path):
        pass
    with Local(tmp_path) as device:
        assert sh(device, "echo here").stdout == "here\n"


def test_killed_holder_leaves_neither_lock_nor_folder(tmp_path):
    holder = child(tmp_path, "os.kill(os.getpid(), 9)")
    holder.communicate()
    assert holder.returncode == -signal.SIGKILL
    assert len(list((tmp_path / "local").glob("work-*"))) == 2

    with Local(tmp_path):
        assert len(list((tmp_path / "local").glob("work-*"))) == 2

    assert list((tmp_path / "local").glob("work-*")) == []


def test_full_disk_names_the_bytes_needed_and_free(tmp_path):
    need("unshare")
    if subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode:
        pytest.skip("this system gives no user namespace")
    (tmp_path / "large").write_bytes(bytes(3_000_000))
    (tmp_path / "state").mkdir()
    script = f"""
from pathlib import Path
from mobilekd.errors import DeviceError
from mobilekd.transports.local import Local
with Local(Path({str(tmp_path / "state")!r})) as device:
    try:
        device.push({{"a": Path({str(tmp_path / "large")!r})}})
    except DeviceError as error:
        print(error.message)
"""
    mounted = f'mount -t tmpfs -o size=1m none {tmp_path / "state"} && exec {sys.executable} -c "$1"'
    done = subprocess.run(
        ["unshare", "-rm", SHELL, "-c", mounted, SHELL, script], capture_output=True, text=True, check=False
    )

    assert "no space left for large" in done.stdout, done.stderr
    assert "3,000,000 bytes needed" in done.stdout


def test_facts_are_those_of_this_machine(device):
    facts = device.facts()

    assert (facts.machine, facts.cores) == (os.uname().machine, os.cpu_count())
    assert facts.features


def test_device_outside_of_its_context_is_an_error(tmp_path):
    with pytest.raises(DeviceError, match="outside of its `with` block"):
        Local(tmp_path).push({})
