"""The commands that the docs and the README show: each `$ mobilekd ...` and `$ make ...` line of a console block."""

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
_FENCE = re.compile(r"^```")
_SHELL_ENDS = {"|", "||", "&&", ";", ">", ">>", "2>", "<"}
_PLACEHOLDER = re.compile(r"\b[A-Z][A-Z_]+\b(?!=)")  # not the name of a variable that is set
_OURS = re.compile(r"(\w+=\S* )*(mobilekd|make)\b")


@dataclass(frozen=True)
class Command:
    """One command, without prompt and comment, its lines joined; and where it stands first."""

    where: str
    text: str


def pages(root: Path = ROOT) -> list[Path]:
    return [root / "README.md", *sorted((root / "docs").rglob("*.md"))]


def collect(root: Path = ROOT) -> list[Command]:
    """Return every command once, in the order of the pages."""
    found: dict[str, Command] = {}
    for page in pages(root):
        for command in commands_of(page.read_text(encoding="utf-8"), page.relative_to(root).as_posix()):
            found.setdefault(command.text, command)
    return list(found.values())


def commands_of(markdown: str, name: str) -> Iterable[Command]:
    is_console, pending = False, ""
    for number, line in enumerate(markdown.splitlines(), 1):
        if _FENCE.match(line.strip()):
            is_console, pending = line.strip() == "```console", ""
        elif is_console and (pending or line.startswith("$ ")):
            text = f"{pending} {line.strip()}".strip() if pending else line.removeprefix("$ ")
            if without_comment(text).endswith("\\"):
                pending = without_comment(text).removesuffix("\\").strip()
                continue
            pending = ""
            if _OURS.match(text):
                yield Command(f"{name}:{number}", without_comment(text))


def without_comment(text: str) -> str:
    """Return a line without its comment: a # after white space, outside of quotes."""
    return re.sub(r"""^((?:[^'"#]|'[^']*'|"[^"]*"|(?<!\s)#)*)(?<=\s)#.*$""", r"\1", text).strip()


def resolved(command: Command, placeholders: Mapping[str, str]) -> str:
    """Return the command with its placeholders filled in.

    Raises:
        KeyError: A word in capitals that is not in the table.
    """
    for word in _PLACEHOLDER.findall(re.sub(r"'[^']*'|\"[^\"]*\"", "", command.text)):
        if word not in placeholders:
            raise KeyError(
                f"{command.where}: {word} in `{command.text}` stands for something: say what in PLACEHOLDERS of "
                "tests/docs/tables.py, or give the whole command in NOT_RUN there, with the reason"
            )
    return _PLACEHOLDER.sub(lambda word: placeholders.get(word[0], word[0]), command.text)


def with_options(text: str, options: Sequence[str]) -> str:
    """Return the command with options behind its own words, before a pipe or a redirection."""
    words = list(shlex.shlex(text, posix=False, punctuation_chars=True)) if is_shell(text) else [text]
    end = next((index for index, word in enumerate(words) if word in _SHELL_ENDS), len(words))
    if end == len(words):
        return " ".join((text, *map(shlex.quote, options)))
    mark = words[end]
    head, _, tail = text.partition(f" {mark} ")
    return " ".join((head, *map(shlex.quote, options), mark, tail))


def is_shell(text: str) -> bool:
    """Return whether a shell has to read the line: it has a pipe, a redirection, a variable or several commands."""
    return any(word in _SHELL_ENDS for word in text.split()) or "$" in text or "=" in text.split(maxsplit=1)[0]
