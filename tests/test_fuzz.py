"""Files and words of any content end with a sentence and the right exit code, and never as a bug.

How long that takes is measured by benchmarks/fuzz_config.py.
"""

import contextlib
import io
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.fuzz_config import MOST_CHARACTERS, Case, cases, fault, run
from mobilekd import cli
from mobilekd.errors import ConfigError
from mobilekd.stages.alone import Alone

ANY_FOLDER = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]
NAMES = (
    "",
    "nowhere",
    "x" * 5000,
    "a\nb",
    "~nobody-here/x",
    "junk",
    "folder",
    "folder/x.zip",
    "\x1b[31m",
    "🦊",
    "..",
    "-",
    "--",
)
TYPED = st.one_of(st.sampled_from(NAMES), st.text(st.characters(exclude_characters="\0/"), max_size=8))
LIGHT = (
    ("list",),
    ("explain",),
    ("bundle", "inspect"),
    ("cache", "show", "--cache"),
    ("init",),
    ("toolchain", "list"),
    ("parity",),
    ("plan", "--profile"),
    ("plan", "--until"),
    ("bench", "--on"),
)


@settings(max_examples=200, suppress_health_check=ANY_FOLDER)
@given(case=cases())
def test_a_plan_of_any_files_ends_well_or_in_2(case: Case, tmp_path: Path) -> None:
    assert fault(*run(case, tmp_path)[:2]) == ""


@pytest.mark.slow
@settings(max_examples=2_000, suppress_health_check=ANY_FOLDER)
@given(case=cases())
def test_a_plan_of_very_many_files_ends_well_or_in_2(case: Case, tmp_path: Path) -> None:
    assert fault(*run(case, tmp_path)[:2]) == ""


@settings(max_examples=150, suppress_health_check=ANY_FOLDER)
@given(command=st.sampled_from(LIGHT), words=st.lists(TYPED, max_size=3), content=st.binary(max_size=40))
def test_light_commands_take_any_words(
    command: tuple[str, ...], words: list[str], content: bytes, tmp_path: Path
) -> None:
    (tmp_path / "folder").mkdir(exist_ok=True)
    (tmp_path / "junk").write_bytes(content)
    err = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(err), contextlib.chdir(tmp_path):
        code = cli.run([*command, *words])
    assert fault(code, err.getvalue(), allowed=(0, 2, 3, 7)) == ""


@pytest.mark.parametrize(
    ("option", "value", "code"),
    [
        ("data.path", "x" * 5000, "MKD-202"),
        ("data.path", "a\0b", "MKD-202"),
        ("data.path", "~nobody-here/x", "MKD-202"),
        (".".join(["a"] * 3000), "1", "MKD-205"),
        ("data." + "k" * 1_000_000, "1", "MKD-210"),
        ("data.source", "x" * 1_000_000, "MKD-211"),
        ("stages", '["\\u001b[2J"]', "MKD-220"),
        ("distill.temperature", "1" * 400, "MKD-211"),
        ("distill.epochs", "9223372036854775808", "MKD-211"),
    ],
)
def test_a_value_that_no_option_means(option: str, value: str, code: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["plan", "--set", "data.source=npz", "--set", f"{option}={value}"]) == 2
    err = capsys.readouterr().err
    assert (f"[{code}]" in err, "\x1b" in err, len(err) < 3000) == (True, False, True)


@pytest.mark.parametrize("path", ["x" * 5000, "a\0b", "~nobody-here/x"])
def test_a_checkpoint_that_no_file_can_be(path: str) -> None:
    stage = Alone(network="timm:resnet18", epochs=0, checkpoint=path)
    with pytest.raises(ConfigError) as caught:
        stage.sources(str)
    assert caught.value.code == "MKD-202"


@pytest.mark.parametrize("option", ["--profile", "--pipeline", "--cache", "--until", "--set"])
def test_a_word_of_a_command_may_be_of_any_length(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["plan", option, "x/" * 3000]) == 2
    assert len(capsys.readouterr().err) < 3000


def test_of_many_faults_twenty_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    faults = "".join(f"k{number} = 1\n" for number in range(3000))
    (tmp_path / "p.toml").write_text(f'name = "p"\nstages = ["data"]\n[data]\n{faults}')
    assert cli.run(["plan", "--pipeline", str(tmp_path / "p.toml")]) == 2
    err = capsys.readouterr().err
    assert (err.count("is not an option"), "and 2,980 more" in err, len(err) < MOST_CHARACTERS) == (20, True, True)


@pytest.mark.parametrize(
    "text", ["x = " + "[" * 200 + "]" * 200, "[" + "a." * 3000 + "a]", "x" * 10 + "." + "y.x" * 900]
)
def test_tables_that_lie_too_deep_inside_each_other(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "p.toml").write_text(text)
    assert cli.run(["plan", "--pipeline", str(tmp_path / "p.toml")]) == 2
    assert "[MKD-203]" in capsys.readouterr().err
