import pytest

from mobilekd import console
from mobilekd.errors import ConfigError, MobilekdError


@pytest.fixture
def seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a second pass between two looks at the clock."""
    clock = iter(range(1000))
    monkeypatch.setattr("mobilekd.console.time.monotonic", lambda: next(clock))


def test_a_plain_bar_tells_its_progress_at_most_every_ten_seconds(
    capfd: pytest.CaptureFixture[str], seconds: None
) -> None:
    with console.Console().bar("teacher", 30) as bar:
        for _ in range(30):
            bar.advance(1, "loss 0.1")
    assert capfd.readouterr().err.count("teacher ") == 3


def test_a_plain_bar_that_told_something_tells_its_end(capfd: pytest.CaptureFixture[str], seconds: None) -> None:
    with console.Console().bar("teacher", 12) as bar:
        for _ in range(12):
            bar.advance(1, "loss 0.1")
    assert capfd.readouterr().err.splitlines()[-1].split() == ["teacher", "12/12", "loss", "0.1"]


def test_a_plain_bar_of_a_moment_tells_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    with console.Console().bar("teacher", 1) as bar:
        bar.advance(1)
    assert capfd.readouterr().err == ""


def test_an_error_shows_brackets_as_they_are(capfd: pytest.CaptureFixture[str]) -> None:
    console.Console().fail(MobilekdError("deploy[0] is [red]", hint="[bold]"))
    assert capfd.readouterr().err == "error: deploy[0] is [red] [MKD-070]\nhint: [bold]\n"


def test_the_code_stands_on_the_first_line_of_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    console.Console().fail(ConfigError("a is wrong\nb is wrong", code="MKD-211"))
    assert capfd.readouterr().err == "error: a is wrong [MKD-211]\nb is wrong\n"


def test_an_error_never_steers_the_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    console.Console().fail(ConfigError("\x1b[2J\x07\r\u202e", hint="\x9b"))
    assert capfd.readouterr().err == "error: \\x1b[2J\\x07\\r\\u202e [MKD-200]\nhint: \\x9b\n"


def test_a_line_of_an_error_has_a_bound(capfd: pytest.CaptureFixture[str]) -> None:
    console.Console().fail(ConfigError("x" * 1_000_000))
    assert len(capfd.readouterr().err) < 2_100


def test_a_table_that_is_not_on_a_terminal_has_no_blanks_at_the_ends_of_its_lines(capsys: pytest.CaptureFixture[str]):
    console.print_table(("one", "two"), [("a", ""), ("b", "long")])
    assert capsys.readouterr().out == "one  two\na\nb    long\n"
