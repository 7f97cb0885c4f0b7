"""The report on drift: every int8 model tensor by tensor, and the operators that add most."""

from collections.abc import Sequence
from heapq import nlargest

from mobilekd.drift import DEFAULT_BOUND_STEPS, MEAN_PART, TensorDrift, Walk, badness, first_drift
from mobilekd.release.axis import Axis, root_axis
from mobilekd.release.evidence import Evidence
from mobilekd.release.markup import NOTHING, Html, join, tag
from mobilekd.release.report_format import line, number, percent, stacked, table
from mobilekd.release.report_plots import levels, svg

_HEIGHT_PX = 88
_WORST = 6


def drift_lede(evidence: Evidence) -> str:
    """Return what the section compares, in words."""
    parity = evidence.parity
    return (
        f"Every activation of the quantization table, on {parity.drift_images} test images, in steps of its own scale. "
        "A rounding tie spreads to what follows; so an operator is judged by its own error: its output against "
        "that of the trained operator on the same deployed inputs. "
        f"Bound: {DEFAULT_BOUND_STEPS:g} steps at most, {MEAN_PART * DEFAULT_BOUND_STEPS:g} on average."
    )


def drift_plots(walks: Sequence[Walk]) -> Html:
    """Return one plot for each model and kernel set, all on one axis, and the operators that add most."""
    if not walks:
        return tag("p", {"class": "muted"}, "Not compared: no int8 model ran here, or verify.drift_images was 0.")
    every = [one.max_error_steps for walk in walks for one in walk.tensors]
    own = [one.own_max_error_steps for walk in walks for one in walk.tensors]
    axis = root_axis(max(*every, *own, 1.5 * DEFAULT_BOUND_STEPS))
    plots = tag("div", {"class": "drifts"}, *(_plot(walk, axis) for walk in walks))
    return join((_legend(), plots, _worst_table(walks)))


def _legend() -> Html:
    keys = (
        ("float", "error against the trained network"),
        ("int8", "own error: what the operator itself adds"),
        ("bound", "bound"),
    )
    return tag("p", {"class": "legend"}, *(tag("span", {"class": f"key {kind}"}, text) for kind, text in keys))


def _plot(walk: Walk, axis: Axis) -> Html:
    first = first_drift(walk.tensors, DEFAULT_BOUND_STEPS)
    count = len(walk.tensors)
    bound = _HEIGHT_PX * (1 - axis.place(DEFAULT_BOUND_STEPS) / 100)
    plot = svg(
        _HEIGHT_PX,
        f"{walk.deployment}: error by tensor in graph order, in steps",
        *levels(axis, _HEIGHT_PX, ""),
        _skyline(walk.tensors, axis),
        tag("line", {"class": "bound", "x1": "0", "x2": "100%", "y1": bound, "y2": bound}),
        *(_stem(one, axis, 100 * (index + 0.5) / count) for index, one in enumerate(walk.tensors)),
        _named(first, axis, 100 * (walk.tensors.index(first) + 0.5) / count) if first else NOTHING,
    )
    name = tag("span", {}, f"{walk.deployment} ", tag("small", {}, walk.kernels))
    return tag("figure", {}, tag("figcaption", {}, name, _told(walk, first)), plot)


def _told(walk: Walk, first: TensorDrift | None) -> Html:
    absent = f", {len(walk.absent)} not in the file" if walk.absent else ""
    counted = f"{len(walk.tensors)} tensors, input to output{absent}"
    most = max(one.own_max_error_steps for one in walk.tensors)
    verdict = (
        tag("b", {"class": "status bad"}, f"drifts at {first.name} ({first.operator})")
        if first
        else tag("b", {"class": "status good"}, f"own errors up to {most:.3g} step{'s' * (most != 1)}")
    )
    return tag("span", {}, verdict, tag("small", {}, counted))


def _skyline(tensors: Sequence[TensorDrift], axis: Axis) -> Html:
    """Return the largest error against the trained network as an area with steps, one a tensor."""
    width = 1000 / len(tensors)
    heights = [1000 - 10 * axis.place(one.max_error_steps) for one in tensors]
    steps = "".join(f"V{height:.1f}H{(index + 1) * width:.1f}" for index, height in enumerate(heights))
    return tag(
        "svg",
        {"width": "100%", "height": _HEIGHT_PX, "viewBox": "0 0 1000 1000", "preserveAspectRatio": "none"},
        tag("path", {"class": "skyline", "d": f"M0 1000{steps}V1000Z"}),
    )


def _stem(one: TensorDrift, axis: Axis, across: float) -> Html:
    """Return the own error of a tensor as a stem; none at all is an invisible one, to point at."""
    shown = one.own_max_error_steps or one.max_error_steps
    kind = "bad" if one.passes(DEFAULT_BOUND_STEPS) else "seen" if one.own_max_error_steps else "unseen"
    x, top = f"{across:.2f}%", _HEIGHT_PX * (1 - axis.place(shown) / 100)
    told = (
        f"{one.name} ({one.operator}): own error {one.own_max_error_steps:.3g}, error {one.max_error_steps:.3g} steps"
    )
    place: dict[str, str | float] = {"x1": x, "x2": x, "y1": _HEIGHT_PX, "y2": min(top, _HEIGHT_PX - 2)}
    return tag("line", {"class": f"own {kind}", **place}, tag("title", {}, told))


def _named(first: TensorDrift, axis: Axis, across: float) -> Html:
    """Return the dot on the first tensor that drifts."""
    y = _HEIGHT_PX * (1 - axis.place(first.own_max_error_steps) / 100)
    return tag("circle", {"class": "dot bad", "cx": f"{across:.2f}%", "cy": y, "r": 4.5})


def _worst_table(walks: Sequence[Walk]) -> Html:
    found = ((one, walk) for walk in walks for one in walk.tensors)
    worst = nlargest(_WORST, found, key=lambda pair: badness(pair[0]))
    heads = (
        ("", "Largest own errors"),
        ("", "Model"),
        ("n", "Own error, max"),
        ("n", "Own, mean"),
        ("n", "Error, max"),
        ("n", "Error, mean"),
        ("n", "Off by > ½ step"),
        ("n", "Cosine"),
    )
    return table(heads, (_worst_row(one, walk) for one, walk in worst))


def _worst_row(one: TensorDrift, walk: Walk) -> Html:
    own: tuple[str, ...] = (number(one.own_max_error_steps), number(one.own_mean_error_steps, 4))
    if one.passes(DEFAULT_BOUND_STEPS):
        own = tuple(tag("b", {"class": "bad"}, text) for text in own)
    return line(
        ("name", stacked(one.name, one.operator)),
        ("", stacked(walk.deployment, walk.kernels)),
        *(("n", text) for text in own),
        ("n", number(one.max_error_steps)),
        ("n", number(one.mean_error_steps, 4)),
        ("n", percent(one.share_off)),
        ("n", number(one.cosine, 5)),
    )
