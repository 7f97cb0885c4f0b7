"""Do wrong pipelines and profiles end with a sentence? Random files and words through `mobilekd plan`.

    python -m benchmarks.fuzz_config [--examples 10000] [--seed 0] [--json FILE]

Files are the shipped ones with some changes (other values, unknown keys, tables lost or nested, stages in another
order), then damaged as text (cut, a byte-order mark, CRLF, random bytes); words are --set, --until, --profile and
--pipeline. Each case runs in this process, in a folder with an empty cache. A case fails when it ends with another code
than 0 or 2, prints a traceback, has no line with an error's code, or takes more than a second of a CPU. Prints exit
codes, error codes and the slowest cases; ends with 1 if any case failed.
"""

import argparse
import contextlib
import copy
import datetime
import io
import json
import os
import re
import sys
import tempfile
import time
import tomllib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from mobilekd import cli
from mobilekd.config import Kind, shipped_folder, shipped_names

LIMIT_S = 1.0
"""Of CPU time: another process that is busy makes no case slow."""
_WHOLE = ("quickstart",) * 6
"""The pipeline that needs no data of the user: unchanged, its plan ends well."""
MOST_CHARACTERS = 20_000
"""Of stderr: twenty faults with a line of at most a thousand characters each."""

_PATHS = (
    "a\0b",
    "x" * 5000,
    "~nobody-here/x",
    "no/such/file",
    "x/" * 3000,
    "nowhere.toml",
    "🦊.pt",
    "a\nb",
    "/dev/null/x",
)
_NAMES = (
    "",
    " ",
    "a b",
    "a\nb",
    "a/b",
    "..",
    "\x1b[31m",
    "é",
    "\u202e",
    "data",
    "stages",
    "name",
    "epoch",
    "x" * 300,
    "__class__",
)
_TEXTS = (
    *_PATHS,
    *_NAMES,
    "python:this:x",
    "python:",
    "timm:",
    "timm:nosuch",
    "python:a..b:c",
    "kd",
    "int8",
    "%s%n{0}",
)
_NUMBERS = (0, -1, 1, 2**31, 2**63, 10**30, 10**400, 0.0, -0.0, 1e-320, 1e308, float("nan"), float("inf"), 0.5, -3.7)
_DATES = (datetime.date(2020, 1, 1), datetime.datetime(2020, 1, 1, 12, tzinfo=datetime.UTC), datetime.time(1, 2))

_texts = st.one_of(st.sampled_from(_TEXTS), st.text(max_size=12)).filter(lambda text: not _exists(text))
_scalars = st.one_of(
    _texts, st.sampled_from(_NUMBERS), st.integers(), st.floats(), st.booleans(), st.sampled_from(_DATES)
)
_values = st.recursive(
    _scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_NAMES), inner, max_size=3),
    max_leaves=4,
)
_keys = st.one_of(st.sampled_from(_NAMES), st.text(max_size=8))


@dataclass(slots=True)
class Tally:
    """What the cases ended with."""

    exits: Counter[int] = field(default_factory=Counter)
    codes: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Case:
    """One command: its words, and the files that they name."""

    words: tuple[str, ...]
    files: Mapping[str, bytes]


@st.composite
def files(draw: st.DrawFn, kind: Kind) -> bytes:
    """Return a shipped file of a kind with changes, as it may stand on a disk."""
    name = (
        draw(st.sampled_from((*_WHOLE, *shipped_names(kind))))
        if kind == "pipelines"
        else draw(st.sampled_from(shipped_names(kind)))
    )
    document = copy.deepcopy(_shipped(kind, name))
    for _ in range(draw(st.sampled_from((0, 1, 1, 1, 2, 3)))):
        _change(draw, document)
    text = "".join(_lines(document)).encode(errors="surrogatepass")
    return _damaged(draw, text) if draw(st.integers(0, 5)) == 0 else text


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Return a `mobilekd plan` on a changed pipeline, a changed profile, or both."""
    words, given_files = ["plan"], {}
    which = draw(st.integers(1, 3))
    for bit, kind, option, name in ((1, "pipelines", "--pipeline", "p.toml"), (2, "devices", "--profile", "d.toml")):
        if which & bit:
            given_files[name] = draw(files(kind))
            words += [option, name]
        elif draw(st.integers(0, 9)) == 0:
            words += [option, draw(_arguments)]
    for _ in range(draw(st.sampled_from((0, 0, 0, 1, 2)))):
        words += ["--set", draw(_overrides())]
    if draw(st.integers(0, 9)) == 0:
        words += ["--until", draw(st.sampled_from(("distill", "convert", "convert:tflite-int8")) | _arguments)]
    return Case(tuple(words), given_files)


def run(case: Case, folder: Path) -> tuple[int, str, float]:
    """Return exit code, stderr and CPU seconds of a case; its files are written into the folder first."""
    for name, content in case.files.items():
        (folder / name).write_bytes(content)
    err = io.StringIO()
    began = time.process_time()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(err), contextlib.chdir(folder):
        code = cli.run([*case.words, "--cache", str(folder / "cache")])
    return code, err.getvalue(), time.process_time() - began


def fault(code: int, said: str, allowed: Sequence[int] = (0, 2)) -> str:
    """Return what is wrong with an end, its time left aside; empty for a good one.

    Example:
        >>> fault(2, "error: no [MKD-201]"), fault(70, "error: a bug")
        ('', 'exit code 70')
    """
    if code not in allowed:
        return f"exit code {code}"
    if "Traceback" in said:
        return "a traceback"
    if code and not re.search(r"^error: .*\[MKD-\d{3}\]$", said, re.MULTILINE):
        return "no line with a code"
    if len(said) > MOST_CHARACTERS:
        return f"{len(said):,} characters on stderr"
    if re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", said):
        return "control characters on stderr"
    return ""


def _exists(text: str) -> bool:
    """Return whether a text names something on this disk: a plan reads what data.path names, however much it is."""
    try:
        return bool(text) and Path(text).expanduser().exists()
    except (OSError, ValueError, RuntimeError):
        return False


_arguments = _texts.filter(lambda text: not text.startswith("-"))


def _overrides() -> st.SearchStrategy[str]:
    known = sorted({key for kind in ("pipelines", "devices") for key in _dotted(kind)})
    keys = st.one_of(st.sampled_from(known), st.lists(_keys, min_size=1, max_size=4).map(".".join), _texts)
    values = st.one_of(_values.map(_toml), _texts, st.just("[" * 2000), st.just("1" * 5000), st.just('"""'))
    return st.tuples(keys, st.sampled_from(("=", "=", "=", "")), values).map("".join)


def _dotted(kind: Kind) -> list[str]:
    """Return the keys of the shipped files of a kind as --set takes them."""
    prefix = "profile." if kind == "devices" else ""
    tables = [_shipped(kind, name) for name in shipped_names(kind)]
    return [
        f"{prefix}{table}.{key}"
        for document in tables
        for table, value in document.items()
        for key in (value if isinstance(value, dict) else ())
    ]


def _shipped(kind: Kind, name: str) -> dict[str, Any]:
    return tomllib.loads((shipped_folder(kind) / f"{name}.toml").read_text(encoding="utf-8"))


def _change(draw: st.DrawFn, document: dict[str, Any]) -> None:
    """Change one thing of a document: a value, a key, a table, the stages."""
    tables = [document, *(one for one in document.values() if isinstance(one, dict))]
    tables += [one for value in document.values() if isinstance(value, list) for one in value if isinstance(one, dict)]
    table = draw(st.sampled_from(tables))
    kind = draw(st.sampled_from(("value", "value", "value", "drop", "add", "nest", "list", "stages", "many", "stage")))
    if kind in ("add", "nest", "many", "stage") or not table:
        _add(draw, kind, table, document)
        return
    key = draw(st.sampled_from(sorted(table)))
    if kind == "drop":
        del table[key]
    elif kind == "value":
        table[key] = draw(_values)
    elif kind == "list":
        table[key] = [table[key]] * draw(st.integers(0, 3))
    elif isinstance(stages := document.get("stages"), list):
        names = list(dict.fromkeys([*map(str, stages), *draw(st.sampled_from(((), ("nope",), ("",), ("alone",))))]))
        document["stages"] = draw(st.permutations(names))[: draw(st.integers(0, len(names)))]


def _add(draw: st.DrawFn, kind: str, table: dict[str, Any], document: dict[str, Any]) -> None:
    if kind == "nest":
        inner: Any = 1
        for _ in range(draw(st.sampled_from((2, 40, 200)))):
            inner = {"a": inner}
        table[draw(_keys)] = inner
    elif kind == "many":
        table.update({f"k{number}": number for number in range(draw(st.sampled_from((5, 3000))))})
    elif kind == "stage":
        name = draw(st.sampled_from(("alone", "assistant", "teacher", "quantize", "benchmark", "bundle", "data")))
        document[name] = draw(_values)
        if isinstance(document.get("stages"), list):
            document["stages"].insert(draw(st.integers(0, len(document["stages"]))), name)
    else:
        table[draw(_keys)] = draw(_values)


def _damaged(draw: st.DrawFn, text: bytes) -> bytes:
    """Return a file after what editors, downloads and accidents do to it."""
    at = draw(st.integers(0, len(text)))
    ways = (
        text[:at],
        text[:at] + draw(st.binary(min_size=1, max_size=6)) + text[at:],
        draw(st.binary(max_size=64)),
        *(damage(text) for damage in _DAMAGES),
    )
    return draw(st.sampled_from(ways))


_DAMAGES: tuple[Callable[[bytes], bytes], ...] = (
    lambda text: b"\xef\xbb\xbf" + text,
    lambda text: text.replace(b"\n", b"\r\n"),
    lambda text: text.replace(b"\n", b"\r"),
    lambda text: text + text,
    lambda text: text.decode(errors="replace").encode("utf-16"),
    lambda text: b'name = "' + b"x" * 1_000_000 + b'"\n' + text.partition(b"\n")[2],
    lambda text: text + b'\n["' + b"k" * 1_000_000 + b'"]\n',
    lambda text: text + b"\nx = " + b"[" * 5000,
    lambda text: text + b"\nx = " + b"[" * 400 + b"]" * 400,
    lambda text: text + b"\n[" + b"a." * 3000 + b"a]\n",
    lambda text: text[:0],
)


def _lines(document: Mapping[str, Any]) -> list[str]:
    """Return a document as TOML: values first, each table on one line."""
    return [f"{_key(name)} = {_toml(value)}\n" for name, value in document.items()]


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_key(name)} = {_toml(inner)}" for name, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, str):
        return _key(value)
    return value.isoformat() if isinstance(value, datetime.date | datetime.time) else repr(value)


def _key(text: str) -> str:
    return (
        '"'
        + "".join(
            one if one.isascii() and one.isprintable() and one not in '\\"' else f"\\U{ord(one):08x}" for one in text
        )
        + '"'
    )


def sweep(examples: int, seed_: int, folder: Path) -> Tally:
    """Run that many cases and return what they ended with."""
    tally = Tally()
    run(Case(("plan",), {}), folder)  # imports and tables that the first case would pay for

    @seed(seed_)
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=cases())
    def check(case: Case) -> None:
        code, said, seconds = run(case, folder)
        tally.exits[code] += 1
        tally.codes.update(re.findall(r"\[(MKD-\d{3})\]$", said, re.MULTILINE))
        tally.seconds.append(seconds)
        if wrong := fault(code, said) or (f"{seconds:.1f} s" if seconds > LIMIT_S else ""):
            tally.faults.append(f"{wrong}: {_shown(case)}\n    {said[:600]}")

    check()
    return tally


def _shown(case: Case) -> str:
    return " ".join([repr(case.words)[:400], *(f"{name}: {text[:1500]!r}" for name, text in case.files.items())])


def main(arguments: Sequence[str]) -> int:
    """Run the cases, print the figures, and return 1 if any failed."""
    parser = argparse.ArgumentParser(prog="benchmarks.fuzz_config")
    parser.add_argument("--examples", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    began = time.perf_counter()
    os.environ.pop("MOBILEKD_DEBUG", None)
    with tempfile.TemporaryDirectory() as name:
        os.environ["MOBILEKD_CACHE"] = str(Path(name) / "default-cache")
        tally = sweep(options.examples, options.seed, Path(name))
    ranked = sorted(tally.seconds, reverse=True)
    figures = {
        "cases": len(ranked),
        "seed": options.seed,
        "exit_codes": dict(sorted(tally.exits.items())),
        "error_codes": dict(sorted(tally.codes.items())),
        "slowest_s": [round(one, 3) for one in ranked[:5]],
        "median_s": round(ranked[len(ranked) // 2], 4),
        "whole_s": round(time.perf_counter() - began, 1),
        "faults": len(tally.faults),
    }
    print(json.dumps(figures, indent=2))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    print(*tally.faults[:20], sep="\n", file=sys.stderr)
    return bool(tally.faults)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
