"""Small real models, and the folders of this host where what devices need is kept."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from mobilekd.cache import Cache
from mobilekd.device import runner, runtimes
from mobilekd.errors import MissingToolError
from tests.benchmarking import small
from tests.device import models
from tests.device.tools import need


@pytest.fixture(scope="session")
def devices() -> Path:
    """The user's own folder for devices: runtimes are downloaded and programs built there once, not once a session."""
    need("qemu-aarch64", "aarch64-linux-gnu-gcc")
    state = Cache.default_root() / "devices"
    try:
        runner.kit("aarch64", runtimes.backends(), state, models.Silent())
    except MissingToolError as cause:
        pytest.skip(f"{cause.message} ({cause.hint})")
    return state


@pytest.fixture(scope="session")
def host_state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the tests' own: the lock of this host is not the user's."""
    need("cc")
    return tmp_path_factory.mktemp("host")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, models.Model]:
    """Give int8 models of the three backends; that of TFLite has int8 inputs and outputs."""
    folder = tmp_path_factory.mktemp("tiny")
    return {backend: models.make(backend, folder / backend) for backend in ("tflite", "onnxruntime", "mnn")}


@pytest.fixture(scope="session")
def lone(tiny: Mapping[str, models.Model], tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """Give model files without a bundle: two of the same network, one that takes far longer, one that dies."""
    folder = tmp_path_factory.mktemp("lone")
    return {
        "tflite": tiny["tflite"].file,
        "onnx": tiny["onnxruntime"].file,
        "heavy": small.write_heavy(folder / "heavy.onnx"),
        "wide": small.write_wide(folder / "wide.onnx"),
        "dying": small.write_dying(folder / "dying.onnx"),
    }


@pytest.fixture
def on_emulator(devices: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let commands find the user's folder for devices; they take their cache by --cache."""
    monkeypatch.setenv("MOBILEKD_CACHE", str(devices.parent))
    monkeypatch.delenv("ANDROID_SERIAL", raising=False)
    return devices


@pytest.fixture
def on_host(host_state: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let commands find the tests' own folder for devices."""
    monkeypatch.setenv("MOBILEKD_CACHE", str(host_state))
    return host_state / "devices"


@pytest.fixture
def fake_adb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Return a function that puts a program `adb` on PATH that lists the devices given, each "SERIAL STATE"."""
    monkeypatch.delenv("ANDROID_SERIAL", raising=False)

    def put(*devices: str) -> None:
        program = tmp_path / "bin" / "adb"
        program.parent.mkdir()
        listing = "\n".join(["List of devices attached", *(one.replace(" ", "\t") for one in devices)])
        program.write_text(f"#!/bin/sh\ncat <<END\n{listing}\nEND\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")

    return put


@pytest.fixture
def scripted_adb(fake_adb: Callable[[str], None], tmp_path: Path) -> Callable[[str], None]:
    """Return a function that puts a program `adb` on PATH that runs one line of shell."""

    def put(line: str) -> None:
        fake_adb()
        (tmp_path / "bin" / "adb").write_text(f"#!/bin/sh\n{line}\n")

    return put


@pytest.fixture
def no_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Empty PATH."""
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    monkeypatch.delenv("ANDROID_SERIAL", raising=False)
    monkeypatch.delenv("MOBILEKD_CHROMIUM", raising=False)
