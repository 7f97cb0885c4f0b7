"""Gates as files for CI: JUnit XML for its list of tests, Markdown for its summary page."""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree as Xml

from mobilekd.errors import ConfigError
from mobilekd.release.gates import Gate, plain

_SUITE = "mobilekd gate"
_MARKS = {"holds": "✅ holds", "over": "❌ over", "not measured": "⚠️ not measured"}
HEADS = ("budget", "model", "measured", "limit", "verdict", "note", "next step")


def cells(gate: Gate) -> tuple[str, ...]:
    """Return a row of the table, under HEADS."""
    return (
        gate.budget,
        gate.deployment or "(bundle)",
        gate.shown,
        gate.allowed,
        gate.verdict,
        gate.note,
        gate.next_step,
    )


def counted(gates: Sequence[Gate]) -> str:
    """Return how the gates ended, as "5 hold, 1 over, 2 not measured"."""
    counts = Counter(gate.verdict for gate in gates)
    return f"{counts['holds']} hold, {counts['over']} over, {counts['not measured']} not measured"


def junit(title: str, gates: Sequence[Gate], *, strict: bool) -> str:
    """Return JUnit XML: a test case a gate; one over budget fails, one that was not measured is skipped.

    Args:
        title: What was checked.
        gates: In the order of the table.
        strict: What was not measured fails too.
    """
    failed = [gate for gate in gates if gate.verdict == "over" or (strict and gate.verdict == "not measured")]
    skipped = [gate for gate in gates if gate.verdict == "not measured" and not strict]
    counts = {"tests": str(len(gates)), "failures": str(len(failed)), "errors": "0", "skipped": str(len(skipped))}
    root = Xml.Element("testsuites", {"name": _SUITE, **counts})
    suite = Xml.SubElement(root, "testsuite", {"name": plain(title), **counts})
    for gate in gates:
        name = " ".join(part for part in (gate.budget, gate.deployment) if part)
        case = Xml.SubElement(suite, "testcase", {"classname": _SUITE, "name": plain(name), "time": "0"})
        if gate in failed:
            Xml.SubElement(case, "failure", {"message": plain(gate.sentence()), "type": gate.verdict}).text = _body(
                gate
            )
        elif gate in skipped:
            Xml.SubElement(case, "skipped", {"message": plain(gate.sentence())})
        else:
            Xml.SubElement(case, "system-out").text = _body(gate)
    Xml.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{Xml.tostring(root, encoding="unicode")}\n'


def markdown(title: str, gates: Sequence[Gate]) -> str:
    """Return a section of Markdown with the table, as summary pages of CI show it."""
    rows = [cells(gate) for gate in gates]
    marked = [(*row[:4], _MARKS[row[4]], *row[5:]) for row in rows]
    lines = [HEADS, ("---",) * len(HEADS), *(tuple(_escaped(cell) for cell in row) for row in marked)]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"### Budgets of {_escaped(title)}\n\n{counted(gates)}\n\n{table if gates else 'No budget is set.'}\n"


def write_text(path: Path, text: str) -> None:
    """Write a file beside its place, then rename it: a reader never sees half of it.

    Raises:
        ConfigError: It can't be written.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        beside.write_text(text, encoding="utf-8")
        beside.replace(path)
    except OSError as cause:
        raise ConfigError(f"{path} can't be written: {cause.strerror}", hint="choose another FILE") from cause
    finally:
        beside.unlink(missing_ok=True)


def _body(gate: Gate) -> str:
    parts = {"measured": gate.shown, "limit": gate.allowed, "note": gate.note, "next step": gate.next_step}
    return plain("\n".join(f"{name}: {text}" for name, text in parts.items() if text))


def _escaped(text: str) -> str:
    for sign in "\\`*_[]<>|#":
        text = text.replace(sign, f"\\{sign}")
    return " ".join(text.split())
