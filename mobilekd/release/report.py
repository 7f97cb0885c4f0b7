"""The report: one self-contained page, written twice.

report.html stands under the bundle's digest, so it says nothing that a clock
decides. measurements/report.html is the same page with latency and dates. Both
load nothing: style and plots are in the page.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

from mobilekd.release.evidence import Evidence
from mobilekd.release.manifest import (
    MANIFEST,
    MEASURED_REPORT,
    MEASUREMENTS_MANIFEST,
    Manifest,
    Measurements,
    digest_text,
    manifest_text,
)
from mobilekd.release.markup import NOTHING, Html, join, tag
from mobilekd.release.provenance import Provenance
from mobilekd.release.report_accuracy import accuracy_ladder, parity_table, size_chart
from mobilekd.release.report_classes import class_table
from mobilekd.release.report_contents import file_table, licence_list, model_table, tensor_table
from mobilekd.release.report_drift import drift_lede, drift_plots
from mobilekd.release.report_format import milliseconds, percent
from mobilekd.release.report_header import Tile, float_layers_tile, latency_tile, proved_tiles, tile_row, verdict
from mobilekd.release.report_instructions import answers_table, instruction_lede, instruction_table
from mobilekd.release.report_latency import latency_plot, latency_table
from mobilekd.release.report_layers import layer_tables
from mobilekd.release.report_mixed import float_operator_table, mixed_lede, mixed_table
from mobilekd.release.report_plots import range_plot
from mobilekd.release.report_provenance import provenance_parts
from mobilekd.release.report_training import training_parts


def release_report(evidence: Evidence, manifest: Manifest, provenance: Provenance) -> str:
    """Return report.html: what was built and proved; equal evidence gives an equal page."""
    tiles = (*proved_tiles(evidence), float_layers_tile(evidence))
    latency = tag(
        "p",
        {"class": "lede"},
        "Times are not part of this page, so that equal builds give equal pages: see ",
        _link(MEASURED_REPORT),
    )
    sections = (
        *_proved_sections(evidence),
        _section("Latency", "", latency),
        *_contents_sections(evidence, manifest, provenance),
    )
    callouts = (
        _callout("Over budget", manifest.over_budget),
        _callout("Not measured", manifest.not_measured),
    )
    footer = f"mobilekd {manifest.mobilekd}. The digest of this bundle is the sha256 of {MANIFEST}."
    return _page(manifest, _Content(verdict(evidence, manifest.over_budget), tiles, callouts, sections, footer))


def measured_report(evidence: Evidence, manifest: Manifest, measurements: Measurements, provenance: Provenance) -> str:
    """Return measurements/report.html: the whole page, with latency, its place and its date."""
    over = (*manifest.over_budget, *measurements.over_budget)
    unknown = tuple(one for one in manifest.not_measured if MEASUREMENTS_MANIFEST not in one)
    sections = (
        *_proved_sections(evidence),
        _latency_section(evidence),
        *_contents_sections(evidence, manifest, provenance),
    )
    callouts = (_callout("Over budget", over), _callout("Not measured", (*unknown, *measurements.not_measured)))
    digest = digest_text(manifest_text(manifest))
    footer = f"mobilekd {manifest.mobilekd}. Measured {measurements.measured}. Bundle digest {digest}"
    tiles = (*proved_tiles(evidence), latency_tile(evidence))
    return _page(manifest, _Content(verdict(evidence, over), tiles, callouts, sections, footer))


@dataclass(frozen=True, slots=True)
class _Content:
    verdict: Html
    tiles: tuple[Tile, ...]
    callouts: tuple[Html, ...]
    sections: tuple[Html, ...]
    footer: str


def _page(manifest: Manifest, content: _Content) -> str:
    title = f"{manifest.pipeline or manifest.dataset.name} for {manifest.profile.title}"
    style = Html(resources.files("mobilekd.release").joinpath("report.css").read_text("utf-8"))
    head = tag(
        "head",
        {},
        tag("meta", {"charset": "utf-8"}),
        tag("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}),
        tag("title", {}, f"{title}: model bundle"),
        tag("style", {}, style),
    )
    overline = tag(
        "div",
        {"class": "overline"},
        tag("span", {}, tag("b", {}, "mobilekd"), " model bundle"),
        tag("span", {}, manifest.profile.name),
    )
    header = tag(
        "header", {}, overline, tag("h1", {}, title), content.verdict, tile_row(content.tiles), *content.callouts
    )
    body = tag("body", {}, header, tag("main", {}, *content.sections), tag("footer", {}, content.footer))
    return f"<!doctype html>\n{tag('html', {'lang': 'en'}, head, body)}\n"


def _callout(title: str, sentences: Sequence[str]) -> Html:
    if not sentences:
        return NOTHING
    return tag(
        "div", {"class": "callout"}, tag("h2", {}, title), tag("ul", {}, *(tag("li", {}, one) for one in sentences))
    )


def _section(title: str, lede: str, *content: Html) -> Html:
    told = tag("p", {"class": "lede"}, lede) if lede else NOTHING
    return tag("section", {}, tag("h2", {}, title), told, *content)


def _proved_sections(evidence: Evidence) -> tuple[Html, ...]:
    tolerance = evidence.profile.tolerance
    dataset = evidence.dataset
    held = (
        f"Every model ran on the whole test split beside the fake-quantized network that was trained; kernels that are "
        f"not a backend's default ran on as many of its images as their row says. "
        f"Allowed: top-1 off by {100 * tolerance.top1_drop:.2f} points, "
        f"agreement from {percent(tolerance.agreement)}, {tolerance.float_ops} undecided float layers; "
        f"for other kernels {100 * tolerance.other_top1_drop:.2f} points and {percent(tolerance.other_agreement)}. "
        "Errors are those of the logits, in quantization steps."
    )
    images = dataset.splits.get("test", evidence.parity.images)
    split = f"Top-1 on the test split of {dataset.name}, {images:,} images. The vertical line is the teacher."
    return (
        _section("Accuracy", split, accuracy_ladder(evidence), class_table(evidence)),
        _section("Parity", held, parity_table(evidence)),
        _section("Drift by tensor", drift_lede(evidence), drift_plots(evidence.parity.drift)),
        _float_section(evidence),
        _section("Size", "Model files as they ship; 1 MB is 1,000,000 bytes.", size_chart(evidence)),
        _section("Training", "Top-1 on validation images and loss by epoch.", *training_parts(evidence)),
    )


def _float_section(evidence: Evidence) -> Html:
    if not evidence.table.float_operators and evidence.quantized.network.mixed is None:
        return NOTHING
    return _section("Computed in float", mixed_lede(evidence), mixed_table(evidence), float_operator_table(evidence))


def _latency_section(evidence: Evidence) -> Html:
    latency = evidence.latency
    if latency.place == "emulator":
        parts = (instruction_table(evidence), *layer_tables(evidence), answers_table(evidence))
        return _section("Cost on the emulator", instruction_lede(evidence), *parts)
    place = (
        f"Measured on {latency.ran_on}. Wall time in milliseconds, one image a run, {latency.measured}, {latency.host}."
    )
    told = "Each stroke is one timed run, the dot the median, the box its bootstrap 95 % interval."
    where = (
        NOTHING
        if latency.on_target
        else _callout(latency.ran_on, ("These times rank the models; they are not the times of the target.",))
    )
    budget = _latency_budget(evidence)
    return _section(
        "Latency",
        place,
        where,
        _callout("What can bend these times", latency.worries),
        budget,
        tag("p", {"class": "muted"}, told),
        latency_plot(evidence),
        latency_table(evidence),
        *layer_tables(evidence),
        answers_table(evidence),
    )


def _latency_budget(evidence: Evidence) -> Html:
    limit = evidence.profile.budget.p50_ms
    if limit is None or evidence.latency.on_target:
        return NOTHING
    return tag("p", {}, f"Budget of {milliseconds(limit)} ms (budget.p50_ms): not checked, measured on the host.")


def _contents_sections(evidence: Evidence, manifest: Manifest, provenance: Provenance) -> tuple[Html, ...]:
    table = evidence.table
    told = "Largest magnitude that each tensor can hold, scale × 127, in graph order. A line spans its channels."
    plots = tag(
        "div",
        {"class": "pair"},
        range_plot("Activations", table.with_role("activation")),
        range_plot("Weights", table.with_role("weight")),
    )
    tensors = tag("details", {}, tag("summary", {}, f"All {len(table.tensors)} tensors"), tensor_table(evidence))
    return (
        _section("Ranges", told, plots, tensors),
        _section("Models", _preprocessing(manifest), model_table(manifest)),
        _section("Files", "", file_table(manifest.files)),
        _section("Licences", "", licence_list(manifest.licences)),
        _section("Provenance", "", *provenance_parts(provenance)),
    )


def _preprocessing(manifest: Manifest) -> str:
    rule = manifest.preprocessing
    mean, std = (", ".join(f"{value:g}" for value in values) for values in (rule.mean, rule.std))
    return (
        f"Input: {rule.channel_order}, resized to {rule.height} × {rule.width} ({rule.resize}), then {rule.formula}; "
        f"mean {mean}; std {std}; pixels 0 to 255. "
        f"Output: logits of {len(manifest.labels)} classes, in the order of labels.txt."
    )


def _link(path: str) -> Html:
    return join((tag("a", {"href": path}, path), "."))
