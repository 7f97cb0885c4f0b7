import json
import os
import subprocess
import sys

import pytest

from mobilekd import __version__, cli


def shell(*words: str, **settings: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "mobilekd.cli", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **settings})


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["build", "--profile", "andriod"], "'andriod'"),
        (["plan", "--pipeline", "nonesuch"], "'nonesuch'"),
        (["plan", "--pipeline", "gone/x.toml"], "gone/x.toml"),
        (["plan", "--set", "nonsense"], "nonsense"),
        (["plan", "--set", "profile.nonsense=1"], "nonsense"),
        (["build", "--nope"], "--nope"),
        (["bild"], "bild"),
        (["list", "spoons"], "'spoons'"),
        (["bundle", "inspect", "nowhere.zip"], "nowhere.zip"),
        (["bundle", "verify", "nowhere.zip"], "nowhere.zip"),
        (["parity", "nowhere.zip"], "nowhere.zip"),
        (["init", "nowhere"], "nowhere"),
        (["toolchain", "install", "spoon"], "'spoon'"),
    ],
)
def test_a_mistake_of_the_user_is_named_and_ends_in_2(
    words: list[str], named: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(words) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert named in err
    assert "Traceback" not in err


@pytest.mark.parametrize("kind", ["methods", "backends", "transports", "stages", "pipelines", "profiles"])
def test_list_prints_names(kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["list", kind, "--json"]) == 0
    names = json.loads(capfd.readouterr().out)[kind]
    assert names == sorted(names)


def test_version_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["--version"]) == 0
    assert capfd.readouterr().out == f"mobilekd {__version__}\n"


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, mobilekd.cli; assert mobilekd.cli.run(['--help']) == 0;"
        "print(sorted({'torch', 'timm', 'onnx', 'onnxruntime', 'numpy', 'pydantic', 'rich'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]\n")


def test_the_command_line_works_as_a_program() -> None:
    done = shell("build", "--profile", "andriod")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: there is no profile 'andriod'")


def test_debug_shows_the_traceback() -> None:
    assert "Traceback" in shell("build", "--profile", "andriod", MOBILEKD_DEBUG="1").stderr


def test_a_reader_that_goes_away_is_no_failure() -> None:
    command = f"{sys.executable} -m mobilekd.cli list stages | head -c 1"
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True, check=False)
    assert done.stderr == ""
