"""The plot of a sweep: validation top-1 against what a student costs."""

from collections.abc import Iterable, Sequence

from mobilekd.release.axis import Axis, linear_axis, log_axis, tick_label
from mobilekd.release.markup import NOTHING, Html, join, tag
from mobilekd.sweep_rows import COSTS, Row, named, spread
from mobilekd.units import readable_bytes

_WIDTH, _HEIGHT, _LEFT, _TOP = 640, 300, 64, 44
_STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#62656b}.title{font-size:13px;fill:#17181a}.grid{stroke:#ececea}"
    ".front{fill:none;stroke:#1f5fd6;stroke-width:1.5}.dot{fill:#8a8f98}.dot.on{fill:#1f5fd6}.bar{stroke:#8a8f98}"
)


def pareto_svg(rows: Sequence[Row]) -> str:
    """Return the plot: validation top-1 against bytes, and against time and instructions where there are any."""
    panels = [([row for row in rows if row[cost] is not None], cost, mark, title) for cost, mark, title in COSTS]
    panels = [panel for panel in panels if panel[0]]
    drawn = [
        tag("g", {"transform": f"translate(0 {index * (_HEIGHT + _TOP + 40)})"}, _panel(*panel))
        for index, panel in enumerate(panels)
    ]
    height = max(1, len(panels)) * (_HEIGHT + _TOP + 40)
    size: dict[str, str | float] = {"viewBox": f"0 0 {_WIDTH + _LEFT + 40} {height}"}
    page = tag("rect", {"width": "100%", "height": "100%", "fill": "#fff"})
    return tag("svg", {"xmlns": "http://www.w3.org/2000/svg", **size}, tag("style", {}, Html(_STYLE)), page, *drawn)


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
    title = tag("title", {}, f"{named(row['values'])}: {spread(row, 'top1_validation')}")
    kind = "dot on" if row[mark] else "dot"
    return tag("g", {}, title, bar, tag("circle", {"class": kind, "cx": x, "cy": y, "r": 4.5}))


def _label(across: Axis, up: Axis, row: Row, cost: str) -> Html:
    """Return the name of a point of the front, on the side where there is more room."""
    x, y = _x(across, row[cost]), _y(up, row)
    is_left = x < _LEFT + _WIDTH / 2
    name = ", ".join(str(value).removeprefix("timm:") for value in row["values"].values())
    where: dict[str, str | float] = {"x": x + (9 if is_left else -9), "y": y + (16 if is_left else -9)}
    return tag("text", {**where, "text-anchor": "start" if is_left else "end"}, name)


def _x(across: Axis, value: float) -> float:
    return _LEFT + _WIDTH * across.place(value) / 100


def _y(up: Axis, row: Row) -> float:
    return _TOP + _HEIGHT * (1 - up.place(100 * row["top1_validation"]) / 100)
