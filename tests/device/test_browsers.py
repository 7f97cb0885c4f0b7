"""Which browser is taken, and the words that start it."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from mobilekd.device.browsers import Browser, find_browser, start_argv
from mobilekd.errors import MissingToolError

CHROMIUM = Browser("/usr/bin/chromium", "Chromium 1.2")
Put = Callable[[str, str], Path]


@pytest.fixture
def put(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Put:
    """Return a function that puts a program on a PATH that has nothing else; it runs one line of shell."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("MOBILEKD_CHROMIUM", raising=False)

    def write(name: str, line: str) -> Path:
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\n{line}\n")
        program.chmod(0o755)
        return program

    return write


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ("Chromium 156.0.8078.108 built on Debian GNU/Linux 12 (bookworm)", "Chromium 156.0.8078.108"),
        ("Google Chrome 155.0.1.2 ", "Google Chrome 155.0.1.2"),
        ("Chromium 150.0.1.2 snap", "Chromium 150.0.1.2"),
    ],
)
def test_the_version_is_the_browser_s_name_and_number(put: Put, said: str, version: str) -> None:
    put("chromium", f"echo '{said}'")
    assert find_browser().version == version


def test_chrome_is_taken_where_no_chromium_is(put: Put) -> None:
    program = put("google-chrome", "echo Google Chrome 1.2")
    assert find_browser().program == str(program)


def test_the_variable_names_another_one(put: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    put("chromium", "echo Chromium 1.1")
    monkeypatch.setenv("MOBILEKD_CHROMIUM", str(put("mine", "echo Chromium 2.2")))
    assert find_browser().version == "Chromium 2.2"


def test_the_profile_s_browser_comes_before_the_variable_s(put: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOBILEKD_CHROMIUM", str(put("mine", "echo Chromium 2.2")))
    put("theirs", "echo Chromium 3.3")
    assert find_browser("theirs").version == "Chromium 3.3"


def test_without_any_all_names_are_told_and_one_command_mends_it(put: Put) -> None:
    with pytest.raises(
        MissingToolError, match="no browser is on PATH: chromium, chromium-browser, google-chrome"
    ) as no:
        find_browser()
    assert no.value.hint.startswith("apt-get install --yes --no-install-recommends chromium;")


@pytest.mark.parametrize(
    ("wanted", "variable", "told"),
    [("opera", "", "device.browser is 'opera'"), ("", "/no/such", r"\$MOBILEKD_CHROMIUM is '/no/such'")],
)
def test_one_that_is_named_and_not_there_is_never_replaced(
    put: Put, monkeypatch: pytest.MonkeyPatch, wanted: str, variable: str, told: str
) -> None:
    put("chromium", "echo Chromium 1.1")
    monkeypatch.setenv("MOBILEKD_CHROMIUM", variable)
    with pytest.raises(MissingToolError, match=told):
        find_browser(wanted)


@pytest.mark.parametrize("line", ["exit 3", "echo hello", "echo Chromium 1.2; exit 1"])
def test_a_program_that_tells_no_version_is_no_browser(put: Put, line: str) -> None:
    put("chromium", line)
    with pytest.raises(MissingToolError, match="tells no version of Chromium"):
        find_browser()


@pytest.mark.parametrize(("user", "words"), [(0, 1), (1000, 0)])
def test_only_root_runs_it_without_its_sandbox(monkeypatch: pytest.MonkeyPatch, user: int, words: int) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: user)
    assert start_argv(CHROMIUM, Path("/p"), "file:///start").count("--no-sandbox") == words


def test_its_profile_is_its_own_and_its_page_is_the_last_word() -> None:
    words = start_argv(CHROMIUM, Path("/p"), "file:///start")
    assert (words[0], "--user-data-dir=/p" in words, words[-1]) == ("/usr/bin/chromium", True, "file:///start")


def test_it_finds_no_name_but_this_host() -> None:
    assert "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1" in start_argv(CHROMIUM, Path("/p"), "")
