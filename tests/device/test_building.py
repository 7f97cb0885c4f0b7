import pytest

from mobilekd.device import building
from mobilekd.errors import MissingToolError
from tests.device.models import Silent
from tests.device.tools import need


class Lines:
    def __init__(self):
        self.lines = []

    def say(self, line):
        self.lines.append(line)


def test_runner_is_built_once(state):
    need("aarch64-linux-gnu-gcc")
    first, again = building.runner("aarch64", state, Silent()), Lines()

    assert building.runner("aarch64", state, again) == first
    assert again.lines == []


def test_runner_for_arm64_is_an_arm64_program(state):
    need("aarch64-linux-gnu-gcc")
    header = building.runner("aarch64", state, Silent()).read_bytes()[:20]

    assert (header[:4], header[18]) == (b"\x7fELF", 183)


def test_other_compiler_makes_another_file(tmp_path, monkeypatch):
    need("cc")
    first = building.counting_plugin(tmp_path, Silent())
    monkeypatch.setattr(building, "_FLAGS", (*building._FLAGS, "-g"))

    assert building.counting_plugin(tmp_path, Silent()) != first


def test_missing_cross_compiler_names_both_ways_to_get_one(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(building.util, "find_spec", lambda name: None)

    with pytest.raises(MissingToolError) as caught:
        building.compiler("aarch64")

    assert "aarch64-linux-gnu-gcc" in caught.value.message
    assert "ziglang" in caught.value.hint


def test_missing_host_compiler_names_what_was_tried(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(MissingToolError, match="tried cc, gcc and clang"):
        building.counting_plugin(tmp_path, Silent())
