"""A command that is told to end, in a process of its own: how it ends, and what it leaves."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mobilekd.transports.local import Local
from tests.release.workshop import Workshop

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Workshop(tmp_path_factory.mktemp("bundle")).bundle() / "bundle.zip"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda one: one.name)
def test_a_command_that_is_told_to_end_says_so_and_leaves_no_folder(
    number: signal.Signals, bundle: Path, tmp_path: Path
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    command = [sys.executable, "-m", "mobilekd", "bench", f"{bundle}:tflite-int8", "--on", "host"]
    env = os.environ | {"MOBILEKD_CACHE": str(tmp_path / "cache"), "TMPDIR": str(scratch)}
    with (
        Local(tmp_path / "cache" / "devices"),
        subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process,
    ):
        assert process.stderr is not None
        first = next(line for line in process.stderr if "waiting for it" in line)
        process.send_signal(number)
        out, err = process.communicate(timeout=300)

    assert "held by process" in first
    assert (process.returncode, out, err.count("[MKD-130]")) == (130, "", 1)
    assert list(scratch.iterdir()) == []


def test_a_command_under_nohup_goes_on_when_the_terminal_closes(tmp_path: Path) -> None:
    source = (
        "import signal; from mobilekd.failures import end_as_with_ctrl_c; end_as_with_ctrl_c();"
        " print(signal.getsignal(signal.SIGHUP))"
    )
    found = subprocess.run(
        ["nohup", sys.executable, "-c", source], stdout=subprocess.PIPE, text=True, check=True, cwd=tmp_path
    )
    assert found.stdout == f"{signal.SIG_IGN}\n"
