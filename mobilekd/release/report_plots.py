"""The report's plots, as inline SVG that stretches with the page: places in percent, strokes that do not scale."""

from collections.abc import Sequence
from dataclasses import dataclass

from mobilekd.quant_table import TensorQuant
from mobilekd.release.axis import Axis, linear_axis, log_axis, tick_label
from mobilekd.release.evidence import LatencyRow, Trained
from mobilekd.release.markup import NOTHING, Html, join, tag

_LANE_PX = 22
_OVERHANG_PX = 20  # rules run on into the rows above and below, so that they are one line from top to bottom
_STRIP_PX = 30
_CURVE_PX = 132
_RANGE_PX = 200


def _percent(value: float) -> str:
    return f"{value:.2f}%"


def svg(height: int, label: str, *children: Html) -> Html:
    """Return a plot as wide as its place; `label` is read out where it can't be seen."""
    return tag("svg", {"width": "100%", "height": height, "role": "img", "aria-label": label}, *children)


def _rule(axis: Axis, value: float, kind: str) -> Html:
    place = _percent(axis.place(value))
    return tag("line", {"class": kind, "x1": place, "x2": place, "y1": -_OVERHANG_PX, "y2": _LANE_PX + _OVERHANG_PX})


def tick_row(axis: Axis, unit: str) -> Html:
    """Return the labels of an axis, to stand above the lanes that share it."""
    ticks = axis.ticks()
    labels = (
        tag(
            "text",
            {"x": _percent(axis.place(tick)), "y": 11, "text-anchor": _anchor(axis, tick)},
            tick_label(tick) + unit,
        )
        for tick in ticks
    )
    return svg(14, "axis", *labels)


def _anchor(axis: Axis, value: float) -> str:
    place = axis.place(value)
    return "start" if place < 6 else "end" if place > 94 else "middle"


def dot_lane(axis: Axis, value: float, reference: float, kind: str) -> Html:
    """Return one lane of a dot plot: a dot, and a line to the reference value that it is compared with."""
    place, origin = _percent(axis.place(value)), _percent(axis.place(reference))
    middle = _LANE_PX / 2
    return svg(
        _LANE_PX,
        tick_label(value),
        *(_rule(axis, tick, "grid") for tick in axis.ticks()),
        _rule(axis, reference, "reference"),
        tag("line", {"class": f"stem {kind}", "x1": origin, "x2": place, "y1": middle, "y2": middle}),
        tag("circle", {"class": f"dot {kind}", "cx": place, "cy": middle, "r": 4.5}),
    )


def bar_lane(share: float, kind: str) -> Html:
    """Return one bar of a bar chart that starts at zero; `share` of the longest bar, in 0 to 1."""
    width = _percent(max(100 * share, 0.4))
    return svg(
        _LANE_PX,
        f"{100 * share:.0f} %",
        tag("rect", {"class": f"bar {kind}", "y": 5, "width": width, "height": 12, "rx": 2}),
    )


def latency_axis(samples_ms: Sequence[Sequence[float]]) -> Axis:
    """Return one axis for all samples; logarithmic, because runtimes differ by factors."""
    return log_axis(value for samples in samples_ms for value in samples)


def latency_strip(axis: Axis, row: LatencyRow, samples_ms: Sequence[float], kind: str) -> Html:
    """Return every timed run as a fine stroke, the 95 % interval of the median as a box, and the median as a dot."""
    strokes = "".join(f"M{10 * axis.place(value):.1f} 0V10" for value in samples_ms)
    cloud = tag(
        "svg",
        {"y": 7, "width": "100%", "height": _STRIP_PX - 14, "viewBox": "0 0 1000 10", "preserveAspectRatio": "none"},
        tag("path", {"class": f"sample {kind}", "d": strokes}),
    )
    return svg(
        _STRIP_PX,
        f"{row.deployment}: {len(samples_ms)} timed runs",
        *(_rule(axis, tick, "grid") for tick in axis.ticks()),
        cloud,
        _interval(axis, row),
        _median(axis, row, kind),
    )


def _interval(axis: Axis, row: LatencyRow) -> Html:
    if row.ci95_ms is None:
        return NOTHING
    low, high = (axis.place(value) for value in row.ci95_ms)
    return tag(
        "rect",
        {
            "class": "interval",
            "x": _percent(low),
            "width": _percent(high - low),
            "y": 3,
            "height": _STRIP_PX - 6,
            "rx": 2,
        },
    )


def _median(axis: Axis, row: LatencyRow, kind: str) -> Html:
    if row.p50_ms is None:
        return NOTHING
    return tag(
        "circle", {"class": f"dot {kind}", "cx": _percent(axis.place(row.p50_ms)), "cy": _STRIP_PX / 2, "r": 4.5}
    )


@dataclass(frozen=True, slots=True)
class _Curve:
    title: str
    epochs: tuple[float, ...]
    values: tuple[float, ...]
    unit: str


def training_curves(trained: Trained) -> Html:
    """Return the loss and the top-1 of one network over its epochs, side by side."""
    if not trained.history:
        return tag("p", {"class": "muted"}, "Taken as it is, not trained in this run.")
    loss = _Curve("Loss", *_columns([(epoch.epoch, epoch.loss) for epoch in trained.history]), "")
    top1 = _Curve(
        "Top-1", *_columns([(one.epoch, 100 * one.top1) for one in trained.history if one.top1 is not None]), " %"
    )
    return join(_curve(one) for one in (loss, top1) if one.values)


def _columns(points: Sequence[tuple[float, float]]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    return tuple(epoch for epoch, _ in points), tuple(value for _, value in points)


def _curve(curve: _Curve) -> Html:
    axis = linear_axis(curve.values, least_span=0.02)
    first, last = curve.epochs[0], curve.epochs[-1]
    run = max(last - first, 1)
    across = [1000 * (epoch - first) / run for epoch in curve.epochs]
    points = [f"{x:.1f} {1000 - 10 * axis.place(y):.1f}" for x, y in zip(across, curve.values, strict=True)]
    line = tag(
        "svg",
        {"width": "100%", "height": _CURVE_PX, "viewBox": "0 0 1000 1000", "preserveAspectRatio": "none"},
        tag("path", {"class": "curve", "d": "M" + "L".join(points)}),
    )
    end: dict[str, str | float] = {
        "cx": _percent(across[-1] / 10),
        "cy": _CURVE_PX * (1 - axis.place(curve.values[-1]) / 100),
        "r": 3.5,
    }
    ends = (("start", "0", f"epoch {first:g}"), ("end", "100%", f"{last:g}"))
    names = [tag("text", {"x": x, "y": _CURVE_PX + 15, "text-anchor": anchor}, text) for anchor, x, text in ends]
    plot = svg(
        _CURVE_PX + 20,
        f"{curve.title} over epochs",
        *levels(axis, _CURVE_PX, curve.unit),
        line,
        tag("circle", {"class": "dot plain", **end}),
        *names[: 1 + (last > first)],
    )
    final = f"{curve.values[-1]:.4g}{curve.unit}"
    title = tag("figcaption", {}, tag("span", {}, curve.title), tag("b", {}, final))
    return tag("figure", {"class": "curve-panel"}, title, plot)


def levels(axis: Axis, height: int, unit: str) -> list[Html]:
    """Return horizontal grid lines with their values in the margin."""
    parts: list[Html] = []
    for tick in axis.ticks(4):
        y = height * (1 - axis.place(tick) / 100)
        parts.append(tag("line", {"class": "grid", "x1": "0", "x2": "100%", "y1": y, "y2": y}))
        parts.append(tag("text", {"x": -8, "y": y + 4, "text-anchor": "end"}, tick_label(tick) + unit))
    return parts


def range_plot(title: str, tensors: Sequence[TensorQuant]) -> Html:
    """Return the largest value that each tensor can hold, in graph order, on a logarithmic axis.

    A per-channel tensor is a line from its smallest to its largest channel, with a dot at the median channel.
    """
    ranges = [sorted(_largest(tensor)) for tensor in tensors]
    if not ranges:
        return NOTHING
    axis = log_axis(value for channels in ranges for value in channels)
    marks = [
        _range_mark(axis, tensor, channels, 100 * (index + 0.5) / len(tensors))
        for index, (tensor, channels) in enumerate(zip(tensors, ranges, strict=True))
    ]
    plot = svg(_RANGE_PX, f"{title}: ranges in graph order", *levels(axis, _RANGE_PX, ""), *marks)
    count = f"{len(tensors)} tensors, input to output"
    return tag("figure", {}, tag("figcaption", {}, tag("span", {}, title), tag("span", {}, count)), plot)


def _range_mark(axis: Axis, tensor: TensorQuant, channels: Sequence[float], across: float) -> Html:
    low, middle, high = (
        _percent(100 - axis.place(value)) for value in (channels[0], channels[len(channels) // 2], channels[-1])
    )
    x = _percent(across)
    stem = (
        tag("line", {"class": "stem int8", "x1": x, "x2": x, "y1": low, "y2": high}) if len(channels) > 1 else NOTHING
    )
    told = f"{tensor.name}: {channels[0]:.4g}" + (f" to {channels[-1]:.4g}" if len(channels) > 1 else "")
    return tag(
        "g",
        {},
        tag("title", {}, told),
        stem,
        tag("circle", {"class": "dot int8", "cx": x, "cy": middle, "r": 3}),
    )


def _largest(tensor: TensorQuant) -> list[float]:
    """Return the largest magnitude of each channel: scale x 127 where the zero point is 0."""
    bounds = zip(tensor.scale, tensor.zero_point, strict=True)
    return [scale * (tensor.quant_max + abs(zero)) for scale, zero in bounds]
