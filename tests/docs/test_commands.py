"""Every command that the docs and the README show is run, in a folder that has what they speak of.

Training is shortened: tests/docs/tables.py says which options are put behind which commands, what placeholders stand
for, and which commands no test can run.
"""

import re
import shlex
import subprocess
import zlib
from pathlib import Path

import pytest

from mobilekd import cli

from .commands import Command, collect, commands_of, is_shell, resolved, with_options, without_comment
from .tables import EXIT_CODES, NOT_RUN, PLACEHOLDERS, SHRINK

SHOWN = collect()
RUN = [one for one in SHOWN if one.text not in NOT_RUN]


def options_of(command: Command) -> list[str]:
    new = f"new-{zlib.crc32(command.text.encode()):08x}"
    own = re.sub(r"^(\w+=\S* )+", "", command.text)  # without variables before it
    return [word.replace("{new}", new) for pattern, words in SHRINK if re.search(pattern, own) for word in words]


def codes_of(text: str) -> set[int]:
    return next((codes for pattern, codes in EXIT_CODES.items() if re.search(pattern, text)), {0})


def run(text: str) -> int:
    if is_shell(text):
        return subprocess.run(["bash", "-o", "pipefail", "-c", text], check=False).returncode
    return cli.run(shlex.split(text)[1:])


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("command", RUN, ids=lambda one: f"{one.where} {one.text[:60]}")
def test_a_command_of_the_docs_runs(command: Command, workspace: Path, capfd: pytest.CaptureFixture[str]) -> None:
    text = with_options(resolved(command, PLACEHOLDERS), options_of(command))
    code = run(text)
    assert code in codes_of(command.text), f"{command.where}: {text}\n{capfd.readouterr().err[-3000:]}"


def test_a_command_that_is_not_run_is_still_in_the_docs() -> None:
    assert set(NOT_RUN) - {one.text for one in SHOWN} == set()


def test_a_placeholder_is_still_in_the_docs() -> None:
    shown = " ".join(one.text for one in SHOWN)
    assert [word for word in PLACEHOLDERS if not re.search(rf"\b{word}\b", shown)] == []


@pytest.mark.parametrize("pattern", [*(pattern for pattern, _ in SHRINK), *EXIT_CODES])
def test_a_pattern_is_of_some_command(pattern: str) -> None:
    assert any(re.search(pattern, one.text) for one in SHOWN)


def found(markdown: str) -> list[str]:
    return [one.text for one in commands_of(markdown, "page.md")]


def test_lines_that_go_on_are_one_command() -> None:
    assert found("```console\n$ mobilekd train --a \\\n    --b 1   # both\n```") == ["mobilekd train --a --b 1"]


def test_output_other_programs_and_other_blocks_are_no_commands() -> None:
    assert found("```console\n$ cat x\nmobilekd 1\n```\n```sh\n$ mobilekd plan\n```\n$ mobilekd plan\n") == []


def test_a_variable_before_a_command_is_part_of_it_and_no_placeholder() -> None:
    command = next(iter(commands_of("```console\n$ MOBILEKD_CACHE=x mobilekd plan\n```", "page.md")))
    assert resolved(command, {}) == "MOBILEKD_CACHE=x mobilekd plan"
    assert is_shell(command.text)


@pytest.mark.parametrize(
    ("line", "command"),
    [("make build  # all", "make build"), ("plan --set 'a=#b'", "plan --set 'a=#b'"), ("plan a#b", "plan a#b")],
)
def test_a_comment_is_cut_off_outside_of_quotes(line: str, command: str) -> None:
    assert without_comment(line) == command


def test_an_unknown_placeholder_says_where_to_add_it() -> None:
    with pytest.raises(KeyError, match=r"page.md:2: NOWHERE .* PLACEHOLDERS of tests/docs/tables.py"):
        resolved(next(iter(commands_of("```console\n$ mobilekd bench NOWHERE\n```", "page.md"))), PLACEHOLDERS)


def test_options_come_before_a_pipe() -> None:
    assert with_options("mobilekd plan --json | head -1", ["--set", "a=b c"]) == (
        "mobilekd plan --json --set 'a=b c' | head -1"
    )
