"""The report on training: the student against its teacher and against itself alone, the terms of its loss, findings."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mobilekd.release.axis import Axis, linear_axis, log_axis
from mobilekd.release.evidence import Evidence, Trained
from mobilekd.release.markup import NOTHING, Html, join, tag
from mobilekd.release.report_plots import levels, svg, training_curves
from mobilekd.training.diagnosis import Diagnosis

_PX = 200
_KINDS = 5


@dataclass(frozen=True, slots=True)
class Series:
    """One line of a plot: (epoch, value) in order; a single point is drawn across the whole plot."""

    name: str
    kind: str
    points: tuple[tuple[float, float], ...]


def training_parts(evidence: Evidence) -> Sequence[Html]:
    """Return the student's comparison and terms, what the curves speak against, and those of every network."""
    panels = (tag("div", {}, tag("h3", {}, one.role), training_curves(one)) for one in evidence.trained)
    pair = tag("div", {"class": "pair"}, top1_plot(evidence), terms_plot(evidence.student))
    return diagnosis_list(evidence.diagnoses), pair, tag("div", {"class": "panels"}, *panels)


def top1_plot(evidence: Evidence) -> Html:
    """Return validation top-1 over epochs: the student's curve, the teacher's last value, the student trained alone.

    A network that was not trained here has no value on validation images, and no line.
    """
    student, teacher = _top1("distilled", "curve-1", evidence.student), _top1("teacher", "level", evidence.teacher)
    alone = [_top1("alone", "curve-2", evidence.alone)] if evidence.alone else []
    known = [Series(teacher.name, teacher.kind, teacher.points[-1:]), student, *alone]
    return line_plot("Top-1 on validation, %", [one for one in known if one.points], is_log=False)


def terms_plot(student: Trained) -> Html:
    """Return the terms of the student's loss over epochs, weighted as they were summed; logarithmic where it can be."""
    names = dict.fromkeys(name for epoch in student.history for name in epoch.terms)
    series = [
        Series(
            name,
            f"curve-{1 + index % _KINDS}",
            tuple((one.epoch, one.terms[name]) for one in student.history if name in one.terms),
        )
        for index, name in enumerate(names)
    ]
    is_log = all(value > 0 for one in series for _, value in one.points)
    return line_plot("Terms of the student's loss", series, is_log=is_log)


def line_plot(title: str, series: Sequence[Series], *, is_log: bool) -> Html:
    """Return a plot with a legend; nothing when there is no line."""
    epochs = [epoch for one in series for epoch, _ in one.points]
    if not epochs:
        return NOTHING
    values = [value for one in series for _, value in one.points]
    up = log_axis(values) if is_log else linear_axis(values, least_span=1e-3)
    span = (min(epochs), max(epochs))
    lines = tag(
        "svg",
        {"width": "100%", "height": _PX, "viewBox": "0 0 1000 1000", "preserveAspectRatio": "none"},
        *(_line(one, up, span) for one in series),
    )
    ends = [("start", "0", f"epoch {span[0]:g}"), ("end", "100%", f"{span[1]:g}")]
    labels = (tag("text", {"x": x, "y": _PX + 15, "text-anchor": anchor}, text) for anchor, x, text in ends)
    plot = svg(_PX + 20, f"{title} over epochs", *levels(up, _PX, ""), lines, *labels)
    return tag("figure", {}, tag("figcaption", {}, tag("span", {}, title)), _legend(series), plot)


def diagnosis_list(found: Iterable[Diagnosis]) -> Html:
    """Return each finding with its numbers and the next step; nothing for a healthy run."""
    items = [
        tag("li", {}, tag("b", {}, one.cause), f": {one.evidence}. ", tag("span", {"class": "muted"}, _next(one)))
        for one in found
    ]
    if not items:
        return NOTHING
    return tag("div", {"class": "callout"}, tag("h2", {}, "Diagnoses"), tag("ul", {}, *items))


def _next(found: Diagnosis) -> str:
    return f"{found.next_step} [{found.code}]" if found.code else found.next_step


def _top1(name: str, kind: str, trained: Trained) -> Series:
    points = ((one.epoch, 100 * one.top1) for one in trained.history if one.top1 is not None)
    return Series(name, kind, tuple(points))


def _line(series: Series, up: Axis, span: tuple[float, float]) -> Html:
    run = max(span[1] - span[0], 1)
    places = [(1000 * (epoch - span[0]) / run, 1000 - 10 * up.place(value)) for epoch, value in series.points]
    if len(places) == 1:
        places = [(0.0, places[0][1]), (1000.0, places[0][1])]
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
    return tag("path", {"class": f"curve {series.kind}", "d": path}, tag("title", {}, series.name))


def _legend(series: Sequence[Series]) -> Html:
    keys = (
        tag("span", {"class": f"key {one.kind}"}, f"{one.name} ", tag("b", {}, f"{one.points[-1][1]:.4g}"))
        for one in series
    )
    return tag("p", {"class": "legend"}, join(keys))
