"""The catalogue of errors and the places that raise them say the same."""

import ast
import functools
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

import mobilekd
from mobilekd import cli, errors
from mobilekd.catalogue import entries
from tests.errors_page import PAGE, written

SOURCES = sorted(Path(mobilekd.__file__).parent.rglob("*.py"))
CODE = re.compile(r"MKD-\d{3}")
FAILURES = {
    one.__name__: one.exit_code
    for one in (
        errors.ConfigError,
        errors.MissingToolError,
        errors.StageError,
        errors.DeviceError,
        errors.OverBudgetError,
        errors.VerificationError,
    )
} | {"NotThereError": errors.DeviceError.exit_code}


@functools.cache
def nodes() -> tuple[tuple[Path, ast.AST], ...]:
    """Return every node of the sources that makes a failure or holds text."""
    trees = ((path, ast.parse(path.read_text(encoding="utf-8"))) for path in SOURCES)
    kinds = ast.Constant | ast.JoinedStr | ast.Call
    return tuple((path, node) for path, tree in trees for node in ast.walk(tree) if isinstance(node, kinds))


def used_codes() -> set[str]:
    texts = (node.value for _, node in nodes() if isinstance(node, ast.Constant) and isinstance(node.value, str))
    return {text for text in texts if CODE.fullmatch(text)}


def told_codes() -> set[str]:
    """Return codes inside of texts that are printed, as in "... [MKD-808]"."""
    texts = (node for _, node in nodes() if isinstance(node, ast.JoinedStr))
    parts = (part.value for text in texts for part in text.values if isinstance(part, ast.Constant))
    return {code for part in parts for code in CODE.findall(str(part))}


def raised() -> Iterator[tuple[str, str, str]]:
    """Yield place, class and code of every failure that is made with a code of its own."""
    for path, call in nodes():
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in FAILURES:
            given = [word.value for word in call.keywords if word.arg == "code"]
            if given and isinstance(given[0], ast.Constant):
                yield f"{path.name}:{call.lineno}", call.func.id, given[0].value


def commands(text: str) -> list[list[str]]:
    """Return the words of every mobilekd command in backticks, or on a line of its own."""
    quoted = re.findall(r"`([^`]*)`", text) or text.splitlines()
    found = (re.search(r"(?:^| )mobilekd ([a-z-].*)", line) for line in quoted)
    return [shlex.split(match[1], comments=True) for match in found if match]


def unknown_words(words: list[str]) -> list[str]:
    """Return the command or options of a command line that do not exist."""
    command = typer.main.get_command(cli.app)
    while hasattr(command, "commands"):
        if words[0].startswith("-"):
            break
        if words[0] not in command.commands:
            return words[:1]
        command, words = command.commands[words[0]], words[1:]
    known = {option for one in command.params for option in one.opts} | {"--help"}
    return [word for word in words if word.startswith("--") and word not in known]


def test_every_code_that_is_used_is_in_the_catalogue() -> None:
    assert (used_codes() | told_codes()) - entries().keys() == set()


def test_every_entry_of_the_catalogue_is_used() -> None:
    assert entries().keys() - used_codes() - told_codes() == set()


def test_no_code_stands_in_the_catalogue_twice() -> None:
    heads = re.findall(
        r"^\[.*(MKD-\d{3})\]$", Path(mobilekd.__file__).with_name("catalogue.toml").read_text(), re.MULTILINE
    )
    assert sorted(set(heads)) == sorted(heads) == sorted(entries())


def test_a_code_begins_with_the_exit_code_of_its_failure() -> None:
    assert [one for one in raised() if not one[2].startswith(f"MKD-{FAILURES[one[1]]}")] == []


def test_the_walk_over_the_sources_finds_the_failures() -> None:
    assert len(list(raised())) > 200


@pytest.mark.parametrize("kind", errors.MobilekdError.__subclasses__())
def test_a_failure_without_a_code_has_the_general_one_of_its_class(kind: type[errors.MobilekdError]) -> None:
    assert kind("what").code == f"MKD-{kind.exit_code}00"


def test_a_joined_failure_has_the_first_code_that_fits_its_exit_code() -> None:
    failures = [errors.MissingToolError("a"), errors.StageError("b", code="MKD-401"), errors.StageError("c")]
    assert errors.first_code(failures, errors.StageError.exit_code) == "MKD-401"


@pytest.mark.parametrize("entry", entries().values(), ids=lambda entry: entry.code)
def test_an_entry_relates_to_others_that_are_there(entry) -> None:
    assert set(entry.related) - entries().keys() | {entry.code} & set(entry.related) == set()


@pytest.mark.parametrize("entry", entries().values(), ids=lambda entry: entry.code)
def test_the_commands_of_an_entry_exist_with_their_options(entry) -> None:
    lines = [words for text in (*entry.mend, entry.example) for words in commands(text)]
    assert [unknown for words in lines for unknown in unknown_words(words)] == []


def test_the_commands_of_common_troubles_exist_with_their_options() -> None:
    lines = commands(PAGE.read_text(encoding="utf-8").partition("## Common troubles")[2].partition("## Files")[0])
    assert (len(lines) > 10, [unknown for words in lines for unknown in unknown_words(words)]) == (True, [])


def test_the_page_of_errors_is_that_of_the_catalogue() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == written(page), "python -m tests.errors_page"


def test_explain_says_cause_remedy_example_and_what_is_near(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["explain", "MKD-401"]) == 0
    out = capsys.readouterr().out
    assert [part in out for part in ("MKD-401: out of memory", "what to do", "example", "MKD-808")] == [True] * 4


@pytest.mark.parametrize("code", ["401", "mkd-401", " MKD-401 "])
def test_explain_takes_a_code_as_it_was_typed(code: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["explain", code, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["code"] == "MKD-401"


def test_explain_without_a_code_lists_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["explain"]) == 0
    assert CODE.findall(capsys.readouterr().out) == list(entries())


def test_explain_gives_all_as_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["explain", "--json"]) == 0
    assert [one["code"] for one in json.loads(capsys.readouterr().out)["codes"]] == list(entries())


def test_explain_of_an_unknown_code_ends_in_2_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["explain", "MKD-4"]) == 2
    assert re.search(r"did you mean 'MKD-\d04'\? known: MKD-200, ", capsys.readouterr().err)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["plan", "--profile", "andriod"], "MKD-201"),
        (["plan", "--set", "nonsense"], "MKD-205"),
        (["plan", "--set", "distill.epoch=3"], "MKD-210"),
        (["plan", "--set", "distill.epochs=soon"], "MKD-211"),
        (["plan", "--set", "profile.deploy=[{}]"], "MKD-212"),
        (["plan", "--set", 'profile.deploy=[{backend="tflit"}]'], "MKD-220"),
        (["plan", "--set", "distil.epochs=3"], "MKD-221"),
        (["plan", "--pipeline", "{folder}/bare.toml"], "MKD-222"),
        (["plan", "--until", "never"], "MKD-223"),
        (["plan", "--set", "profile.device.cpu=z80"], "MKD-231"),
        (["plan", "--pipeline", "imagefolder"], "MKD-240"),
        (["plan", "--nope"], "MKD-204"),
        (["list", "spoons"], "MKD-206"),
        (["bundle", "inspect", "nowhere.zip"], "MKD-270"),
    ],
)
def test_the_error_line_of_a_mistake_ends_with_its_code(
    words: list[str], code: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bare.toml").write_text('name = "bare"\nstages = ["quantize"]\n')
    assert cli.run([word.format(folder=tmp_path) if "/bare" in word else word for word in words]) == 2
    assert re.search(rf"^error: .*\[{code}\]$", capsys.readouterr().err, re.MULTILINE)


def test_a_bug_has_a_code(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mobilekd.catalogue.entries", lambda: 1 / 0)
    assert cli.run(["explain"]) == 70
    assert "error: a bug of mobilekd: ZeroDivisionError: division by zero [MKD-070]\n" in capsys.readouterr().err
