"""The only file that imports rich: how a build looks. Everything here goes to stderr but the tables of a result."""

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console as RichConsole
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TaskID, TextColumn
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from mobilekd.errors import MobilekdError, one_line
from mobilekd.stage import Bar
from mobilekd.units import printable

_PLAIN_EVERY_S = 10.0
_PLAIN_WIDTH = 200
_BAR_WIDTH = 28
_INDENT = "  "
_LINE_CHARACTERS = 2000
"""Of a line of an error: a value may be of any length, and what a device or a library says, too."""


class Console:
    """Shows a build on a terminal, or as plain lines where stderr is none; implements `pipeline.Watcher`."""

    def __init__(self) -> None:
        self._out = RichConsole(stderr=True, highlight=False)
        self._live: Progress | None = None

    @property
    def is_terminal(self) -> bool:
        """Return whether bars can be drawn."""
        return self._out.is_terminal

    def say(self, line: str) -> None:
        """Show one line that stays."""
        self._print(Text.assemble(_INDENT, "  ", (line, "dim")))

    @contextmanager
    def bar(self, title: str, total: int) -> Iterator[Bar]:
        """Show a bar while the context is open; without a terminal, a line every ten seconds."""
        if not self.is_terminal:
            yield _PlainBar(title, total, self._out)
            return
        is_alone = self._live is None
        live = self._live or self._new_live()
        task = live.add_task(title, total=total, note="")
        live.start()  # after the task: an empty display leaves a blank line
        try:
            yield _LiveBar(live, task)
        finally:
            live.remove_task(task)
            if is_alone:
                self._stop_live()

    def stage_starts(self, label: str, why: str) -> None:
        """Tell that a stage begins."""
        if self.is_terminal:
            live = self._new_live()
            live.add_task(label, total=None, note=why)
            live.start()
        else:
            self._print(Text(f"{_INDENT}… {label}: runs ({why})"))

    def stage_ends(self, label: str, note: str, *, cached: bool) -> None:
        """Tell that a stage is done."""
        self._stop_live()
        style = "dim" if cached else "default"
        self._print(Text.assemble(_INDENT, ("✓ ", "green"), (f"{label:<34} ", style), (note, "dim")))

    def stage_fails(self, label: str, note: str) -> None:
        """Tell that a stage failed, or was left out because of one that did."""
        self._stop_live()
        self._print(Text.assemble(_INDENT, ("✗ ", "red"), f"{label:<34} ", (note, "red")))

    def fail(self, failure: MobilekdError) -> None:
        """Show a failure of the user's, and what to do next."""
        self._stop_live()
        first, *others = failure.message.split("\n")
        self._print(Text.assemble(("error: ", "bold red"), _shown(first), (f" [{failure.code}]", "dim")))
        for line in others:
            self._print(Text(_shown(line)))
        if failure.hint:
            self._print(Text.assemble(("hint: ", "bold cyan"), "\n".join(map(_shown, failure.hint.split("\n")))))
        if self.is_terminal:
            self._print(Text(f"more: mobilekd explain {failure.code}", "dim"))

    def close(self) -> None:
        """Take the bars away; safe to call twice."""
        self._stop_live()

    def _print(self, text: Text) -> None:
        (self._live.console if self._live else self._out).print(text, soft_wrap=True)

    def _new_live(self) -> Progress:
        self._stop_live()
        self._live = Progress(
            TextColumn(" "),
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            _Bar(_BAR_WIDTH),
            _Steps(),
            TextColumn("{task.fields[note]}", style="dim", markup=False),
            console=self._out,
            transient=True,
        )
        return self._live

    def _stop_live(self) -> None:
        if self._live:
            self._live.stop()
            self._live = None


def _shown(line: str) -> str:
    """Return a line of an error without what would steer the terminal, and not longer than one can read."""
    return one_line(line.expandtabs(), _LINE_CHARACTERS)


class _Bar(BarColumn):
    """A bar; nothing for a task without a known end, whose spinner turns."""

    def render(self, task: Task) -> ProgressBar | Text:  # type: ignore[override]
        """Return one cell."""
        return Text() if task.total is None else super().render(task)


class _Steps(ProgressColumn):
    """Steps done and time left; time gone for a task without a known end."""

    def render(self, task: Task) -> Text:
        """Return one cell."""
        if task.total is None:
            return Text(f"{task.elapsed or 0:.0f} s", style="dim")
        left = "" if task.time_remaining is None else f"  {task.time_remaining:.0f} s left"
        return Text(f"{task.completed:.0f}/{task.total:.0f}{left}")


class _LiveBar:
    def __init__(self, live: Progress, task: TaskID) -> None:
        self._live, self._task = live, task

    def advance(self, steps: int = 1, note: str = "") -> None:
        """Move on by some steps."""
        self._live.update(self._task, advance=steps, note=note)


class _PlainBar:
    def __init__(self, title: str, total: int, out: RichConsole) -> None:
        self._title, self._total, self._out = title, total, out
        self._done, self._has_told = 0, False
        self._told = time.monotonic()

    def advance(self, steps: int = 1, note: str = "") -> None:
        """Move on by some steps, and tell it every ten seconds, and at the end what was told before."""
        self._done += steps
        is_end = self._has_told and steps > 0 and self._done == self._total
        if is_end or time.monotonic() - self._told >= _PLAIN_EVERY_S:
            self._told, self._has_told = time.monotonic(), True
            self._out.print(
                Text(f"{_INDENT}  {self._title} {self._done}/{self._total} {note}".rstrip()), soft_wrap=True
            )


@contextmanager
def stdout_for_the_result() -> Iterator[None]:
    """Send all that libraries print, in Python or in C, to stderr while the context is open."""
    sys.stdout.flush()
    try:
        kept = os.dup(1)
    except OSError:  # stdout is closed
        yield
        return
    try:
        with contextlib.suppress(OSError):
            os.dup2(2, 1)
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def print_json(document: object) -> None:
    """Print one JSON object on stdout."""
    print(json.dumps(document, indent=2, ensure_ascii=False))


def print_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print one table on stdout; what a terminal would obey is written out."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for head in heads:
        table.add_column(head, overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    width = None if sys.stdout.isatty() else _PLAIN_WIDTH
    console = RichConsole(highlight=False, width=width)
    if sys.stdout.isatty():
        console.print(table)
        return
    with console.capture() as shown:
        console.print(table)
    print("\n".join(line.rstrip() for line in shown.get().splitlines()))
