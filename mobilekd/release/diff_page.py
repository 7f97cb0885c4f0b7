"""The diff of two releases as one page that loads nothing, with the pictures of the images that flipped."""

import base64
import io
from collections.abc import Iterable, Sequence
from importlib import resources

import numpy as np
from numpy.typing import NDArray

from mobilekd.release.diff import Diff, Side
from mobilekd.release.diff_answers import AnswerChange, Flip
from mobilekd.release.diff_app import Change
from mobilekd.release.diff_cost import CostChange
from mobilekd.release.markup import NOTHING, Html, join, tag
from mobilekd.release.report_format import ABSENT, count, line, megabytes, percent, points, table

PICTURES = 60
"""Most pictures of each kind and deployment: the page stays small, and the list of all images is in --json."""
_COLOURS = {"error": "bad", "breaking": "warn", "note": "muted"}
_VERDICTS = {"cheaper": "good", "dearer": "warn"}
_SIDE_PX = 72

Pixels = NDArray[np.uint8]
"""Images of the test split, [n, height, width, channels]."""


def diff_page(diff: Diff, images: Pixels | None, why_no_pictures: str = "") -> str:
    """Return the page.

    Args:
        diff: Two releases.
        images: The test split that both answered; None where it is not at hand, with the reason.
        why_no_pictures: Shown in the place of the pictures.
    """
    style = Html(resources.files("mobilekd.release").joinpath("report.css").read_text("utf-8"))
    title = f"{diff.new.pipeline} for {diff.new.profile}: what changed"
    head = tag(
        "head",
        {},
        tag("meta", {"charset": "utf-8"}),
        tag("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}),
        tag("title", {}, title),
        tag("style", {}, style, Html(_STYLE)),
    )
    overline = tag("div", {"class": "overline"}, tag("span", {}, tag("b", {}, "mobilekd"), " bundle diff"))
    header = tag("header", {}, overline, tag("h1", {}, title), _verdict(diff), _sides(diff))
    sections = (
        _section("For an app", "Labels, preprocessing, files, inputs and outputs.", _app(diff.app)),
        _section("Accuracy", _answers_lede(diff), _answers(diff.answers)),
        *(_flips(names, one, images, why_no_pictures) for names, one in _alike(diff.answers)),
        _section(
            "Cost", "Bytes of the files; instructions or time as both releases measured them.", _costs(diff.costs)
        ),
        _operators(diff),
        _table(diff),
        _licences(diff),
    )
    body = tag("body", {}, header, tag("main", {}, *sections), tag("footer", {}, f"mobilekd {diff.new.mobilekd}."))
    return f"<!doctype html>\n{tag('html', {'lang': 'en'}, head, body)}\n"


_STYLE = """
.pictures { display: flex; flex-wrap: wrap; gap: 12px; margin: 8px 0 20px; padding: 0; list-style: none; }
.pictures li { width: 104px; font-size: 12px; line-height: 1.35; overflow-wrap: anywhere; }
.pictures img { display: block; width: 72px; height: 72px; margin-bottom: 4px; object-fit: contain;
  image-rendering: pixelated; background: var(--raised); border: 1px solid var(--line); border-radius: 4px; }
"""


def _verdict(diff: Diff) -> Html:
    if diff.is_same:
        return tag("p", {"class": "verdict"}, "The same release: every file but the measurements is equal.")
    errors, breaking = (len(diff.of_weight(weight)) for weight in ("error", "breaking"))
    if errors:
        told = tag("b", {"class": "bad"}, "An app with the old labels would show wrong names.")
    elif breaking:
        told = tag("b", {"class": "warn"}, f"{breaking} change{'s' * (breaking > 1)} that an app has to follow.")
    else:
        told = tag("b", {"class": "good"}, "An app can load it without a change.")
    flipped = max((one.flips for one in diff.answers), default=0)
    return tag("p", {"class": "verdict"}, told, f" At most {flipped:,} answers flipped in one model.")


def _sides(diff: Diff) -> Html:
    heads = (("", ""), ("", "Bundle"), ("", "mobilekd"), ("n", "Size"), ("", "Digest"))
    return table(heads, (_side(word, side) for word, side in (("old", diff.old), ("new", diff.new))))


def _side(word: str, side: Side) -> Html:
    name = f"{side.pipeline} for {side.profile}"
    return line(
        ("name", word), ("", name), ("", side.mobilekd), ("n", megabytes(side.files_bytes)), ("mono", side.digest)
    )


def _section(title: str, lede: str, *content: Html) -> Html:
    return tag("section", {}, tag("h2", {}, title), tag("p", {"class": "lede"}, lede), *content)


def _app(changes: Sequence[Change]) -> Html:
    if not changes:
        return tag("p", {}, "Nothing changed.")
    heads = (("", ""), ("", "What"), ("", "Old"), ("", "New"), ("", "So"))
    return table(
        heads,
        (
            line(
                (f"status {_COLOURS[one.weight]}", one.weight),
                ("name", one.subject),
                ("wrap", one.old),
                ("wrap", one.new),
                ("wrap", one.says),
            )
            for one in changes
        ),
    )


def _answers_lede(diff: Diff) -> str:
    if diff.not_compared:
        return f"Not compared: {diff.not_compared}."
    images = diff.answers[0].drop.images if diff.answers else 0
    return f"The same {images:,} test images, one by one. The interval is that of the paired difference, 95 %."


def _answers(changes: Sequence[AnswerChange]) -> Html:
    if not changes:
        return NOTHING
    heads = [("", "Network"), *(("n", text) for text in ("Old", "New", "Points", "Interval", "Right to wrong"))]
    heads += [("n", "Wrong to right"), ("n", "Wrong otherwise"), ("", "Classes that lost most")]
    return table(heads, map(_answer_row, changes))


def _answer_row(one: AnswerChange) -> Html:
    lost = [c for c in one.classes if c.new < c.old][:3]
    worst = ", ".join(f"{c.name}: {points(c.new - c.old)}" for c in lost)
    return line(
        ("name", one.name),
        ("n", percent(one.old_top1)),
        ("n", percent(one.new_top1)),
        ("n", points(-one.drop.loss)),
        ("n", f"{points(-one.drop.high)} to {points(-one.drop.low)}"),
        ("n", count(len(one.lost))),
        ("n", count(len(one.won))),
        ("n", count(len(one.other))),
        ("wrap", worst or ABSENT),
    )


def _alike(changes: Sequence[AnswerChange]) -> list[tuple[str, AnswerChange]]:
    """Return changes with flips; those of backends that answer alike are one, with all their names."""
    by_flips: dict[tuple[tuple[Flip, ...], ...], list[AnswerChange]] = {}
    for one in changes:
        if one.flips:
            by_flips.setdefault((one.lost, one.won, one.other), []).append(one)
    return [(", ".join(one.name for one in alike), alike[0]) for alike in by_flips.values()]


def _flips(names: str, change: AnswerChange, images: Pixels | None, why_no_pictures: str) -> Html:
    kinds = (("Right to wrong", change.lost), ("Wrong to right", change.won), ("Wrong otherwise", change.other))
    shown = [part for title, flips in kinds if flips for part in _gallery(title, flips, images)]
    lede = f"{change.flips:,} of {change.drop.images:,} answers changed."
    return _section(f"Flipped: {names}", lede if images is not None else f"{lede} {why_no_pictures}", *shown)


def _gallery(title: str, flips: Sequence[Flip], images: Pixels | None) -> Iterable[Html]:
    more = f", the first {PICTURES}" if len(flips) > PICTURES else ""
    yield tag("h3", {}, f"{title}: {len(flips):,}{more}")
    yield tag("ul", {"class": "pictures"}, *(_picture(flip, images) for flip in flips[:PICTURES]))


def _picture(flip: Flip, images: Pixels | None) -> Html:
    told = f"image {flip.image}, {flip.label}: was {flip.old}, is {flip.new}"
    words = join((tag("b", {}, flip.label), Html("<br/>"), f"{flip.old} → {flip.new}", Html("<br/>"), f"#{flip.image}"))
    if images is None:
        return tag("li", {}, words)
    size = {"width": _SIDE_PX, "height": _SIDE_PX}
    return tag("li", {}, tag("img", {"alt": told, "src": _data_url(images[flip.image]), **size}), words)


def _data_url(pixels: Pixels) -> str:
    """Return one image, [height, width, channels], as a PNG in a URL."""
    from PIL import Image

    stream = io.BytesIO()
    array = np.asarray(pixels, np.uint8)
    Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array).save(stream, format="PNG")
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def _costs(costs: Sequence[CostChange]) -> Html:
    heads = [("", "Model"), ("n", "Bytes, old"), ("n", "New"), ("", "Measured"), ("n", "Old"), ("n", "New")]
    heads += [("n", "Ratio"), ("", "Verdict"), ("", "By")]
    return table(heads, map(_cost_row, costs))


def _cost_row(one: CostChange) -> Html:
    ratio = f"{one.new / one.old:.3f}" if one.old and one.new else ABSENT
    old, new = (
        ABSENT if value is None else f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
        for value in (one.old, one.new)
    )
    return line(
        ("name", one.deployment),
        ("n", count(one.old_bytes)),
        ("n", count(one.new_bytes)),
        ("", one.kind or ABSENT),
        ("n", old),
        ("n", new),
        ("n", ratio),
        (_VERDICTS.get(one.verdict, ""), one.verdict),
        ("wrap", one.reason),
    )


def _operators(diff: Diff) -> Html:
    if not diff.operators:
        return NOTHING
    heads = (("", "Model"), ("", "Operator"), ("n", "Old"), ("n", "New"))
    rows = (
        line(("name", one.deployment), ("", one.operator), ("n", count(one.old)), ("n", count(one.new)))
        for one in diff.operators
    )
    return _section("Operators", "Layers by operator, as the runtime names them.", table(heads, rows))


def _table(diff: Diff) -> Html:
    change = diff.table
    lede = f"{change.same} tensors equal, {len(change.scales)} with other scales."
    parts = {"Gone": change.gone, "New": change.new, "Changed": change.other}
    parts |= {"Computed in float now": change.to_float, "In int8 now": change.to_int8}
    lists = [tag("p", {}, tag("b", {}, f"{title}: "), ", ".join(names)) for title, names in parts.items() if names]
    heads = (("", "Tensor"), ("", "Role"), ("n", "Largest factor between scales"))
    rows = [line(("mono", one.name), ("", one.role), ("n", f"{one.factor:.4g}")) for one in change.scales]
    scales = tag("details", {}, tag("summary", {}, f"{len(rows)} scales"), table(heads, rows)) if rows else NOTHING
    return _section("Quantization table", lede, *lists, scales)


def _licences(diff: Diff) -> Html:
    if not (diff.licences_gone or diff.licences_new):
        return NOTHING
    rows = [
        line(("", word), ("wrap", one))
        for word, all_ in (("gone", diff.licences_gone), ("new", diff.licences_new))
        for one in all_
    ]
    return _section(
        "Licences", "What stands under another licence, or is new.", table((("", ""), ("", "Licence")), rows)
    )
