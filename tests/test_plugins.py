import subprocess
import sys

import pytest

from mobilekd.errors import ConfigError
from mobilekd.plugins import BACKENDS, METHODS, STAGES, TRANSPORTS, Plugins
from mobilekd.stage import Stage


def test_names_are_the_files_without_those_that_start_with_an_underscore() -> None:
    names = STAGES.names()
    assert {"data", "convert", "bundle"} <= set(names)
    assert list(names) == sorted(names)
    assert not [name for name in names if name.startswith("_")]


@pytest.mark.parametrize("name", STAGES.names())
def test_a_stage_is_found_by_its_file_name(name: str) -> None:
    found = STAGES.load(name)
    assert issubclass(found, Stage)
    assert found.stage_name() == name


def test_a_class_is_found_without_the_underscores_of_its_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mobilekd.plugins.Plugins.names", lambda _: ("quant_table",))
    monkeypatch.setattr("importlib.import_module", lambda _: __import__("mobilekd.quant_table", fromlist=["x"]))
    assert Plugins("stages").load("quant_table").__name__ == "QuantTable"


@pytest.mark.parametrize("plugins", [STAGES, METHODS, BACKENDS, TRANSPORTS])
def test_an_unknown_name_is_quoted_and_the_known_are_listed(plugins: Plugins) -> None:
    with pytest.raises(ConfigError, match="'nonesuch'") as caught:
        plugins.load("nonesuch")
    assert all(name in caught.value.hint for name in plugins.names())


def test_a_near_name_is_suggested() -> None:
    with pytest.raises(ConfigError) as caught:
        STAGES.load("quantise")
    assert caught.value.hint.startswith("did you mean 'quantize'?")


def test_a_name_that_climbs_out_is_no_plugin() -> None:
    with pytest.raises(ConfigError):
        STAGES.load("..cli")


def test_listing_and_loading_stages_imports_no_framework() -> None:
    code = (
        "import sys; from mobilekd.plugins import STAGES, BACKENDS;"
        "[STAGES.load(name) for name in STAGES.names()]; BACKENDS.names();"
        "print(sorted({'torch', 'timm', 'onnx', 'onnxruntime', 'MNN', 'tensorflow', 'rich'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
