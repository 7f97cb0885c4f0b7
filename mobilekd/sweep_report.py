"""What a sweep found: rows over seeds, the Pareto front, a table and a plot."""

import os
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mobilekd.artifacts import canonical_json
from mobilekd.release.axis import Axis, linear_axis, log_axis, tick_label
from mobilekd.release.markup import NOTHING, Html, join, tag
from mobilekd.units import percent, readable_bytes

SCHEMA = "mobilekd.sweep/1"

Row = Mapping[str, Any]

_COSTS = (
    ("bytes", "on_front", "model size"),
    ("latency_ms", "on_latency_front", "latency p50, ms"),
    ("instructions", "on_instruction_front", "instructions of one inference"),
)
_WIDTH, _HEIGHT, _LEFT, _TOP = 640, 300, 64, 44
_STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#62656b}.title{font-size:13px;fill:#17181a}.grid{stroke:#ececea}"
    ".front{fill:none;stroke:#1f5fd6;stroke-width:1.5}.dot{fill:#8a8f98}.dot.on{fill:#1f5fd6}.bar{stroke:#8a8f98}"
)


def group(done: Iterable[tuple[Row, Sequence[Row]]]) -> list[dict[str, Any]]:
    """Return a row for each combination, the best validation top-1 first.

    {"values", "runs", "top1_validation", "top1_validation_std", "top1_test", "top1_test_std", "parameters", "bytes",
    "bytes_of", "seconds", "latency_ms", "instructions", "latency_of", "on_front", "on_latency_front",
    "on_instruction_front"}: means over seeds; a deviation is that of a sample (n - 1), None for one seed; the fronts
    are those of validation top-1 against bytes, time and instructions.

    Args:
        done: Values of a combination, and its students, one a seed; a combination that comes twice counts once.
    """
    kept = {canonical_json(dict(values)): (values, runs) for values, runs in done}
    rows = sorted((_row(values, runs) for values, runs in kept.values()), key=lambda row: -row["top1_validation"])
    for cost, mark, _ in _COSTS:
        known = [row for row in rows if row[cost] is not None]
        marks = pareto_front([row[cost] for row in known], [row["top1_validation"] for row in known])
        for row, is_on in zip(known, marks, strict=True):
            row[mark] = is_on
    return rows


def pareto_front(costs: Sequence[float], gains: Sequence[float]) -> list[bool]:
    """Return for each point whether no other costs at most as much and gains at least as much, and differs in one.

    Example:
        >>> pareto_front([1, 2, 2, 3], [0.5, 0.7, 0.6, 0.7])
        [True, True, False, False]
    """
    points = list(zip(costs, gains, strict=True))
    return [
        not any(other != (cost, gain) and other[0] <= cost and other[1] >= gain for other in points)
        for cost, gain in points
    ]


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


def cells(row: Row, keys: Sequence[str]) -> list[str]:
    """Return a row of the table, without its place."""
    return [
        *(str(row["values"].get(key, "-")) for key in keys),
        _spread(row, "top1_validation"),
        _spread(row, "top1_test"),
        f"{row['parameters']:,}",
        readable_bytes(row["bytes"]),
        _cost(row),
        f"{row['seconds']:.1f} s",
        "yes" if row["on_front"] else "",
    ]


def heads(keys: Sequence[str]) -> list[str]:
    """Return the heads of the table."""
    return [*keys, "top-1 validation", "top-1 test", "parameters", "bytes", "cost", "training", "front"]


def markdown(document: Row) -> str:
    """Return sweep.md."""
    keys = list(document["axes"])
    lines = [heads(keys), ["---"] * len(heads(keys)), *(cells(row, keys) for row in document["rows"])]
    sizes = ", ".join(dict.fromkeys(row["bytes_of"] for row in document["rows"])) or "-"
    places = ", ".join(dict.fromkeys(row["latency_of"] for row in document["rows"] if row["latency_of"]))
    told = [
        f"# Sweep of pipeline {document['pipeline']}, until {document['until']}\n",
        f"{len(document['rows'])} of {document['combinations']} combinations, {document['seeds']} seed(s) each; "
        "mean ± sample deviation. Rows are ranked by validation top-1; the test split is reported and chooses nothing. "
        f"Bytes: {sizes}." + (f" Cost on {places}." if places else "") + "\n",
        *(f"| {' | '.join(one)} |" for one in lines),
        *(f"\nFailed: {one['values']}: {one['error']}" for one in document["failed"]),
    ]
    return "\n".join(told) + "\n"


def pareto_svg(rows: Sequence[Row]) -> str:
    """Return the plot: validation top-1 against bytes, and against time and instructions where there are any."""
    panels = [([row for row in rows if row[cost] is not None], cost, mark, title) for cost, mark, title in _COSTS]
    panels = [panel for panel in panels if panel[0]]
    drawn = [
        tag("g", {"transform": f"translate(0 {index * (_HEIGHT + _TOP + 40)})"}, _panel(*panel))
        for index, panel in enumerate(panels)
    ]
    height = max(1, len(panels)) * (_HEIGHT + _TOP + 40)
    size: dict[str, str | float] = {"viewBox": f"0 0 {_WIDTH + _LEFT + 40} {height}"}
    page = tag("rect", {"width": "100%", "height": "100%", "fill": "#fff"})
    return tag("svg", {"xmlns": "http://www.w3.org/2000/svg", **size}, tag("style", {}, Html(_STYLE)), page, *drawn)


def _row(values: Row, runs: Sequence[Row]) -> dict[str, Any]:
    return {
        "values": dict(values),
        "runs": list(runs),
        **_mean_and_std("top1_validation", runs),
        **_mean_and_std("top1_test", runs),
        **{key: runs[0][key] for key in ("parameters", "bytes", "bytes_of", "latency_of")},
        "seconds": round(statistics.fmean(run["seconds"] for run in runs), 3),
        **{key: _mean_of_known(key, runs) for key in ("latency_ms", "instructions")},
        **{mark: False for _, mark, _ in _COSTS},
    }


def _mean_of_known(key: str, runs: Sequence[Row]) -> float | None:
    known = [run[key] for run in runs if run.get(key) is not None]
    return statistics.fmean(known) if known else None


def _mean_and_std(key: str, runs: Sequence[Row]) -> dict[str, float | None]:
    known = [run[key] for run in runs]
    return {key: statistics.fmean(known), f"{key}_std": statistics.stdev(known) if len(known) > 1 else None}


def _cost(row: Row) -> str:
    """Return the median latency, or instructions where those were counted."""
    if row["latency_ms"] is not None:
        return f"{row['latency_ms']:.3f} ms"
    return "-" if row["instructions"] is None else f"{row['instructions'] / 1e6:.2f} M instr."


def _spread(row: Row, key: str) -> str:
    deviation = row[f"{key}_std"]
    return percent(row[key]) if deviation is None else f"{100 * row[key]:.2f} ± {100 * deviation:.2f} %"


def _panel(rows: Sequence[Row], cost: str, mark: str, title: str) -> Html:
    costs = [row[cost] for row in rows]
    # Within a factor of 4 a logarithmic axis has one round tick or none.
    across = log_axis(costs) if max(costs) > 4 * min(costs) else linear_axis(costs, least_span=0.2 * max(costs))
    ends = [row["top1_validation"] + sign * (row["top1_validation_std"] or 0) for row in rows for sign in (-1, 1)]
    up = linear_axis((100 * end for end in ends), least_span=1.0)
    front = sorted((row for row in rows if row[mark]), key=lambda row: row[cost])
    line = " ".join(f"{_x(across, row[cost]):.1f},{_y(up, row):.1f}" for row in front)
    return join(
        (
            tag("text", {"class": "title", "x": _LEFT, "y": 22}, f"validation top-1 against {title}"),
            *_grid(across, up, "bytes" if cost == "bytes" else ""),
            tag("polyline", {"class": "front", "points": line}),
            *(_dot(across, up, row, cost, mark) for row in rows),
            *(_label(across, up, row, cost) for row in front),
        )
    )


def _grid(across: Axis, up: Axis, unit: str) -> Iterable[Html]:
    bottom, right = _TOP + _HEIGHT, _LEFT + _WIDTH
    for tick in up.ticks():
        y = bottom - _HEIGHT * up.place(tick) / 100
        yield tag("line", {"class": "grid", "x1": _LEFT, "x2": right, "y1": y, "y2": y})
        yield tag("text", {"x": _LEFT - 8, "y": y + 4, "text-anchor": "end"}, f"{tick_label(tick)} %")
    for tick in across.ticks():
        x = _x(across, tick)
        yield tag("line", {"class": "grid", "x1": x, "x2": x, "y1": _TOP, "y2": bottom})
        text = readable_bytes(tick) if unit else tick_label(tick)
        yield tag("text", {"x": x, "y": bottom + 18, "text-anchor": "middle"}, text)


def _dot(across: Axis, up: Axis, row: Row, cost: str, mark: str) -> Html:
    x, y = _x(across, row[cost]), _y(up, row)
    reach = (row["top1_validation_std"] or 0) * 100 * _HEIGHT / (up.high - up.low)
    bar = tag("line", {"class": "bar", "x1": x, "x2": x, "y1": y - reach, "y2": y + reach}) if reach else NOTHING
    named = ", ".join(f"{key}={value}" for key, value in row["values"].items())
    title = tag("title", {}, f"{named}: {_spread(row, 'top1_validation')}")
    kind = "dot on" if row[mark] else "dot"
    return tag("g", {}, title, bar, tag("circle", {"class": kind, "cx": x, "cy": y, "r": 4.5}))


def _label(across: Axis, up: Axis, row: Row, cost: str) -> Html:
    """Return the name of a point of the front, on the side where there is more room."""
    x, y = _x(across, row[cost]), _y(up, row)
    is_left = x < _LEFT + _WIDTH / 2
    named = ", ".join(str(value).removeprefix("timm:") for value in row["values"].values())
    where: dict[str, str | float] = {"x": x + (9 if is_left else -9), "y": y + (16 if is_left else -9)}
    return tag("text", {**where, "text-anchor": "start" if is_left else "end"}, named)


def _x(across: Axis, value: float) -> float:
    return _LEFT + _WIDTH * across.place(value) / 100


def _y(up: Axis, row: Row) -> float:
    return _TOP + _HEIGHT * (1 - up.place(100 * row["top1_validation"]) / 100)
