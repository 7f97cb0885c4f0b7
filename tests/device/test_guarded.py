"""A guarded program ends with its parent, whatever ends that."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mobilekd.device.guarded import Guarded
from tests.device.tools import need
from tests.processes import runs, wait_until

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="no /proc: processes can't be looked up")
CHILD = """
import sys, time
from pathlib import Path
from mobilekd.device.guarded import Guarded
with Guarded(["sleep", sys.argv[1]], Path(sys.argv[2])):
    print("started", flush=True)
    time.sleep(600)
"""


def test_a_killed_parent_takes_its_program_with_it(tmp_path):
    need("sleep")
    seconds = f"9{os.getpid()}.1"
    argv = [sys.executable, "-c", CHILD, seconds, str(tmp_path / "log")]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert wait_until(lambda: runs("sleep", seconds))
        child.send_signal(signal.SIGKILL)
    assert wait_until(lambda: not runs("sleep", seconds))


def test_leaving_the_context_ends_the_program(tmp_path):
    need("sleep")
    seconds = f"9{os.getpid()}.2"
    with Guarded(["sleep", seconds], tmp_path / "log"):
        assert wait_until(lambda: runs("sleep", seconds))
    assert not runs("sleep", seconds)


def test_a_program_that_ends_by_itself_is_seen(tmp_path):
    with Guarded(["true"], tmp_path / "log") as guarded:
        assert wait_until(lambda: not guarded.is_running)


def test_what_it_prints_is_in_the_log(tmp_path):
    with Guarded(["sh", "-c", "echo out; echo err >&2"], tmp_path / "log") as guarded:
        assert wait_until(lambda: not guarded.is_running)
    assert (tmp_path / "log").read_text() == "out\nerr\n"
