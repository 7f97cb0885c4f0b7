import pytest

from mobilekd import console
from mobilekd.errors import MobilekdError


def test_a_plain_bar_tells_its_progress_at_most_every_ten_seconds(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(1000))
    monkeypatch.setattr("mobilekd.console.time.monotonic", lambda: next(clock))
    with console.Console().bar("teacher", 30) as bar:
        for _ in range(30):
            bar.advance(1, "loss 0.1")
    assert capfd.readouterr().err.count("teacher ") == 3


def test_an_error_shows_brackets_as_they_are(capfd: pytest.CaptureFixture[str]) -> None:
    console.Console().fail(MobilekdError("deploy[0] is [red]", hint="[bold]"))
    assert capfd.readouterr().err == "error: deploy[0] is [red] [MKD-070]\nhint: [bold]\n"
