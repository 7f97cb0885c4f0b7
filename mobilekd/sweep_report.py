"""What a sweep found: a table, remarks and a plot, on disk."""

import os
from collections.abc import Sequence
from pathlib import Path

from mobilekd.artifacts import canonical_json
from mobilekd.sweep_plot import pareto_svg
from mobilekd.sweep_rows import Row, named, spread
from mobilekd.units import readable_bytes

SCHEMA = "mobilekd.sweep/1"


def write_report(document: Row, out: Path) -> None:
    """Write sweep.json, sweep.md and pareto.svg, each in one rename: a reader never sees half a file."""
    out.mkdir(parents=True, exist_ok=True)
    for name, text in (
        ("sweep.json", canonical_json(document)),
        ("sweep.md", markdown(document)),
        ("pareto.svg", pareto_svg(document["rows"])),
    ):
        beside = out / f".{name}.{os.getpid()}"
        beside.write_text(text, encoding="utf-8")
        beside.replace(out / name)


def cells(row: Row, keys: Sequence[str], *, baseline: bool = False) -> list[str]:
    """Return a row of the table, without its place."""
    return [
        *(str(row["values"].get(key, "-")) for key in keys),
        spread(row, "top1_validation"),
        spread(row, "top1_test"),
        *([_over_alone(row)] if baseline else ()),
        f"{row['parameters']:,}",
        readable_bytes(row["bytes"]),
        _cost(row),
        f"{row['seconds']:.1f} s",
        "yes" if row["on_front"] else "",
    ]


def heads(keys: Sequence[str], *, baseline: bool = False) -> list[str]:
    """Return the heads of the table."""
    gain = ["over alone"] if baseline else []
    return [*keys, "top-1 validation", "top-1 test", *gain, "parameters", "bytes", "cost", "training", "front"]


def table(document: Row) -> list[list[str]]:
    """Return the heads and rows of a sweep."""
    keys, baseline = list(document["axes"]), document["baseline"]
    return [heads(keys, baseline=baseline), *(cells(row, keys, baseline=baseline) for row in document["rows"])]


def remarks(document: Row) -> list[str]:
    """Return a line for each combination that failed, or whose student is worse than without a teacher."""
    worse = [(named(row["values"]), one) for row in document["rows"] for one in row["diagnoses"]]
    return [
        *(
            f"{name}, seed {one['seed']}: {one['cause']} [{one['code']}]: {one['evidence']}; {one['next_step']}"
            for name, one in worse
        ),
        *(f"Failed: {named(one['values'])}: {one['error']} [{one['code']}]" for one in document["failed"]),
    ]


def markdown(document: Row) -> str:
    """Return sweep.md."""
    head, *rows = table(document)
    lines = [head, ["---"] * len(head), *rows]
    sizes = ", ".join(dict.fromkeys(row["bytes_of"] for row in document["rows"])) or "-"
    places = ", ".join(dict.fromkeys(row["latency_of"] for row in document["rows"] if row["latency_of"]))
    told = [
        f"# Sweep of pipeline {document['pipeline']}, until {document['until']}\n",
        f"{len(document['rows'])} of {document['combinations']} combinations, {document['seeds']} seed(s) each; "
        "mean ± sample deviation. Rows are ranked by validation top-1; the test split is reported and chooses nothing. "
        f"Bytes: {sizes}." + (f" Cost on {places}." if places else "") + "\n",
        *(f"| {' | '.join(one)} |" for one in lines),
        *(f"\n{line}" for line in remarks(document)),
    ]
    return "\n".join(told) + "\n"


def _over_alone(row: Row) -> str:
    if row["over_alone"] is None:
        return "-"
    deviation = row["over_alone_std"]
    spread = "" if deviation is None else f" ± {100 * deviation:.2f}"
    return f"{100 * row['over_alone']:+.2f}{spread} points"


def _cost(row: Row) -> str:
    """Return the median latency, or instructions where those were counted."""
    if row["latency_ms"] is not None:
        return f"{row['latency_ms']:.3f} ms"
    return "-" if row["instructions"] is None else f"{row['instructions'] / 1e6:.2f} M instr."
