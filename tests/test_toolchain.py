import socket
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mobilekd import toolchain
from mobilekd.errors import MissingToolError


class Lines:
    """Keeps what was said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, line: str) -> None:
        self.said.append(line)


def program(path: Path, script: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.fixture
def bare_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine whose only Python is a shim that exits 127; the real uv is found through its package."""
    uv = toolchain.find_uv()
    shim = program(tmp_path / "bin" / "python3.12", "exit 127")
    monkeypatch.setattr(sys, "executable", str(shim))
    (tmp_path / "bin" / "uv").symlink_to(uv)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    monkeypatch.setenv("UV_PYTHON_INSTALL_DIR", str(tmp_path / "uv"))
    monkeypatch.chdir(tmp_path)  # uv also looks into a .venv beside it: that of whoever runs the tests
    return tmp_path


def test_a_shim_that_exits_127_is_passed_over_for_pyenvs_own(bare_machine: Path) -> None:
    real = program(bare_machine / "pyenv" / "versions" / "3.12.9" / "bin" / "python", "echo 3 12")
    assert toolchain.find_python() == real


def test_a_python_of_another_version_is_passed_over(bare_machine: Path) -> None:
    program(bare_machine / "bin" / "python3", "echo 3 11")
    newer = program(bare_machine / "pyenv" / "versions" / "3.13.1" / "bin" / "python", "echo 3 13")
    assert toolchain.find_python() == newer


def test_no_python_names_what_was_tried_and_the_command_that_mends_it(bare_machine: Path) -> None:
    program(bare_machine / "bin" / "python3", "echo 3 11")
    with pytest.raises(MissingToolError) as caught:
        toolchain.find_python()
    assert f"{bare_machine}/bin/python3.12 (exit code 127)" in caught.value.message
    assert f"{bare_machine}/bin/python3 (CPython 3.11)" in caught.value.message
    assert "uv python install 3.12" in caught.value.hint


def test_every_requirement_of_the_lock_has_a_hash_and_none_a_host() -> None:
    text = toolchain.lock_text("onnx2tf")
    requirements = text.replace("\\\n", "").splitlines()
    without_hash = [
        line for line in requirements if "==" in line and not line.startswith("#") and "sha256:" not in line
    ]
    assert without_hash == []
    assert "://" not in text
    assert toolchain.pins("onnx2tf")["onnx2tf"] == "2.6.9"


def test_a_toolchain_that_is_not_made_says_the_command_that_makes_it(tmp_path: Path) -> None:
    status = toolchain.status("onnx2tf", tmp_path)
    assert (status.ready, status.detail) == (False, "not made yet: mobilekd toolchain install onnx2tf")


def test_the_users_python_settings_do_not_reach_a_converter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    monkeypatch.setenv("PIP_FIND_LINKS", "/wheels")
    monkeypatch.setenv("HTTPS_PROXY", "proxy:3128")
    env = toolchain.isolated_env(Path("/env/bin/python"))
    assert not {"PYTHONPATH", "PIP_FIND_LINKS"} & env.keys()
    assert env["HTTPS_PROXY"] == "http://127.0.0.1:9"
    assert env["PATH"].startswith("/env/bin:")


@pytest.mark.skipif(not toolchain.offline_prefix(), reason="this system does not let a program take its network away")
def test_a_program_behind_the_offline_prefix_reaches_no_listener() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        connect = f"import socket; socket.create_connection(('127.0.0.1', {server.getsockname()[1]}), 2)"
        direct = subprocess.run([sys.executable, "-c", connect], check=False, capture_output=True)
        offline = subprocess.run(
            [*toolchain.offline_prefix(), sys.executable, "-c", connect], check=False, capture_output=True
        )
    assert (direct.returncode, offline.returncode) == (0, 1)


def test_an_index_that_is_out_of_reach_is_a_missing_tool_and_leaves_no_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "empty"))
    root = tmp_path / "toolchains"
    with pytest.raises(MissingToolError, match="the onnx2tf environment could not be made"):
        toolchain.install("onnx2tf", root, Lines())
    assert not toolchain.status("onnx2tf", root).ready


@pytest.mark.slow
def test_a_half_made_environment_is_thrown_away_and_two_installs_make_one(tmp_path: Path) -> None:
    version = subprocess.run(
        [toolchain.find_python(), "-c", "import sys; print('%d.%d' % sys.version_info[:2])"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    half = tmp_path / f"onnx2tf-{toolchain.lock_digest('onnx2tf')[:16]}-py{version}"
    rest = program(half / "bin" / "rest", "")
    lines = Lines()
    with ThreadPoolExecutor(2) as pool:
        pythons = list(pool.map(lambda _: toolchain.install("onnx2tf", tmp_path, lines), range(2)))
    assert pythons[0] == pythons[1]
    assert len([line for line in lines.said if line.startswith("making")]) == 1
    assert toolchain.status("onnx2tf", tmp_path).path == half
    assert not rest.exists()


@pytest.mark.slow
def test_an_environment_that_lost_its_python_is_made_again(tmp_path: Path) -> None:
    python = toolchain.install("onnx2tf", tmp_path, Lines())
    python.unlink()
    assert not toolchain.status("onnx2tf", tmp_path).ready
    assert toolchain.install("onnx2tf", tmp_path, Lines()).exists()
