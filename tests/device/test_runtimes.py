import os
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

from mobilekd.device import runtimes
from mobilekd.errors import ConfigError, MissingToolError, VerificationError
from tests.device.models import Silent

PINNED = {
    line.partition("==")[0].lower(): line.partition("==")[2].strip()
    for line in (Path(__file__).parents[2] / "constraints.txt").read_text(encoding="utf-8").splitlines()
    if "==" in line
}


@pytest.fixture
def wheels(tmp_path, monkeypatch):
    """Give a folder that stands for every package index."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.mark.parametrize("backend", runtimes.backends())
def test_runtime_of_devices_is_the_version_that_the_host_is_tested_with(backend):
    wanted = runtimes.pin(backend)

    assert wanted.version == PINNED[wanted.distribution.lower()]


@pytest.mark.parametrize("backend", runtimes.backends())
def test_installed_package_of_the_pinned_version_is_used_as_it_is(backend, tmp_path):
    wanted = runtimes.pin(backend)
    if os.uname().machine != "x86_64" or metadata.version(wanted.distribution) != wanted.version:
        pytest.skip(f"{wanted.distribution} {wanted.version} for x86_64 is not installed")

    found = runtimes.runtime(backend, "x86_64", tmp_path, Silent())

    assert found.library.is_file()
    assert list(tmp_path.iterdir()) == []


def test_without_a_package_index_the_error_gives_the_command(wheels, tmp_path):
    with pytest.raises(MissingToolError) as caught:
        runtimes.runtime("tflite", "aarch64", tmp_path / "state", Silent())

    assert caught.value.message.startswith("ai-edge-litert 2.3.0 for aarch64 could not be downloaded: ERROR")
    assert "--platform manylinux_2_27_aarch64" in caught.value.hint
    assert caught.value.hint.endswith("ai-edge-litert==2.3.0")


def test_wheel_that_is_not_the_pinned_one_is_refused_and_leaves_nothing(wheels, tmp_path):
    info = "ai_edge_litert-2.3.0.dist-info"
    with zipfile.ZipFile(wheels / "ai_edge_litert-2.3.0-cp311-cp311-manylinux_2_27_aarch64.whl", "w") as wheel:
        wheel.writestr("ai_edge_litert/libLiteRt.so", b"other")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: ai-edge-litert\nVersion: 2.3.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: cp311-cp311-manylinux_2_27_aarch64\n")
        wheel.writestr(f"{info}/RECORD", "")

    with pytest.raises(VerificationError, match="853fc608"):
        runtimes.runtime("tflite", "aarch64", tmp_path / "state", Silent())

    assert list((tmp_path / "state" / "runtimes").iterdir()) == []


def test_backend_without_a_runtime_for_devices_is_named(tmp_path):
    with pytest.raises(ConfigError, match="'tensorrt' has no runtime for devices"):
        runtimes.runtime("tensorrt", "aarch64", tmp_path, Silent())


def test_machine_without_a_runtime_is_named(tmp_path):
    with pytest.raises(ConfigError, match="mnn has no runtime for riscv64"):
        runtimes.runtime("mnn", "riscv64", tmp_path, Silent())
