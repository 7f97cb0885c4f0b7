import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest

from mobilekd.profile import Budget
from mobilekd.release.axis import linear_axis, log_axis, root_axis
from mobilekd.release.markup import tag
from mobilekd.release.report_format import milliseconds, points

from .workshop import CLASSES, MODELS, OPTIONS, RAN_ON, Workshop

EVIL = '<script src="http://evil.example/x.js">&'


@pytest.fixture(scope="module")
def measured(built: Path) -> str:
    return (built / "bundle/measurements/report.html").read_text()


@pytest.fixture(scope="module")
def released(built: Path) -> str:
    return (built / "bundle/report.html").read_text()


class Structure(HTMLParser):
    """The tags that are open, and what loads something."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)
        self.loads += [f"{tag} {key}={value}" for key, value in attrs if key in {"src", "data", "srcset", "onload"}]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Count nothing: the element closes itself."""


def _structure(page: str) -> Structure:
    parser = Structure()
    parser.feed(page)
    return parser


def test_every_tag_is_closed_and_nothing_is_loaded(measured: str):
    structure = _structure(measured)
    assert (structure.open, structure.loads) == ([], [])


@pytest.mark.parametrize("word", ["http:", "https:", "//", "@import", "url(", "<script", "<link", "<img", "<iframe"])
def test_page_reaches_for_nothing_outside_itself(measured: str, released: str, word: str):
    assert word not in measured.lower()
    assert word not in released.lower()


NUMBERS = (
    "99.44 %",  # teacher
    "98.89 %",  # student
    "98.61 %",  # fake-quant student, tflite
    "98.33 %",  # onnxruntime
    "98.06 %",  # mnn
    "−1.38",  # the lowest against the teacher
    "99.72 %",  # agreement
    "1.37",  # largest error
    "0.042",  # mean error
    "1.12 MB",
    "1,121,804 bytes",
    "0.235 ×",
    "0.260 ×",
    "0.245 ×",
)


@pytest.mark.parametrize("number", NUMBERS)
def test_both_pages_show_what_was_proved(measured: str, released: str, number: str):
    assert number in measured
    assert number in released


def test_measured_page_shows_every_percentile(workshop: Workshop):
    evidence = workshop.evidence()
    page = workshop.page(evidence)
    rows = [row for row in evidence.latency.rows if row.p50_ms is not None]
    shown = [milliseconds(value) for row in rows for value in (row.p50_ms, row.p90_ms, row.p95_ms, row.p99_ms)]
    shown += [" to ".join(map(milliseconds, row.ci95_ms or ())) for row in rows]
    assert [text for text in shown if text not in page] == []


def test_measured_page_draws_every_sample(measured: str):
    strokes = [len(re.findall("M", path)) for path in re.findall(r'class="sample [a-z0-9]+" d="([^"]+)"', measured)]
    assert strokes == [200] * 6


def test_measured_page_says_where_and_when(measured: str):
    assert f"Measured on {RAN_ON}" in measured
    assert "2026-03-01" in measured
    assert "2.33 ×" in measured
    assert "Budget of 5.00 ms (budget.p50_ms): not checked, measured on the host." in measured


def test_released_page_has_no_time_and_points_to_the_one_that_has(released: str):
    assert " ms" not in released
    assert 'href="measurements/report.html"' in released


def test_target_times_carry_no_warning(tmp_path: Path):
    workshop = Workshop(tmp_path, on_target=True)
    page = workshop.page(workshop.evidence())
    assert "not the target" not in page
    assert "Measured on target" in page


def test_all_tensors_are_drawn_and_listed(measured: str):
    ranges = measured.partition("<h2>Ranges</h2>")[2]
    assert ranges.count("<title>") == 73
    assert measured.count("conv_35.weight") == 2


def test_names_of_classes_and_networks_are_escaped(tmp_path: Path):
    out = Workshop(tmp_path, classes=(EVIL, *CLASSES[1:]), source=EVIL, note=EVIL).bundle()
    page = (out / "bundle/measurements/report.html").read_text()
    assert "<script" not in page
    assert "&lt;script" in page
    assert _structure(page).loads == []


def test_verdict_is_over_budget_and_says_which(tmp_path: Path):
    workshop = Workshop(tmp_path, budget=Budget(model_bytes=1_000_000))
    page = workshop.page(workshop.evidence())
    assert '<b class="status warn">Over budget</b>' in page
    assert "onnxruntime-int8: 1.1 MB model, budget 1.0 MB" in page


def test_verdict_counts_what_was_proved(measured: str):
    assert "3 of 4 models proved equal to the trained network on 360 test images; 1 built, not run." in measured


def test_verdict_is_failed_when_a_shipped_model_drifts(tmp_path: Path):
    workshop = Workshop(tmp_path, failed="mnn")
    page = workshop.page(workshop.evidence())
    assert '<b class="status bad">Parity failed</b>' in page


def test_a_build_where_nothing_ran_still_has_a_page(tmp_path: Path):
    workshop = Workshop(tmp_path, models=MODELS[3:4])
    assert "Nothing proved" in workshop.page(workshop.evidence())


def test_attributes_are_escaped():
    assert tag("a", {"title": '"><b>'}, "x") == '<a title="&quot;&gt;&lt;b&gt;">x</a>'


def test_equal_values_have_an_axis():
    assert linear_axis([0.5, 0.5]).place(0.5) == pytest.approx(50)
    assert log_axis([0.5, 0.5]).place(0.5) == pytest.approx(50)


def test_ticks_stand_on_the_axis():
    axis = linear_axis([0.97, 0.99])
    assert all(axis.low <= tick <= axis.high for tick in axis.ticks())
    assert 2 <= len(axis.ticks()) <= 9


def test_log_axis_drops_what_has_no_logarithm():
    assert log_axis([0.0, 1.0, 10.0]).place(0.0) == 0.0


def test_a_difference_below_a_hundredth_has_no_sign():
    assert points(-0.00001) == "0.00"


def test_the_pipeline_is_in_the_title(released: str):
    assert f"<h1>{OPTIONS.pipeline} for Android phones (arm64)</h1>" in released


def drift_section(page: str) -> str:
    return page.partition("<h2>Drift by tensor</h2>")[2].partition("</section>")[0]


def test_both_pages_draw_every_tensor_of_every_walk(measured: str, released: str):
    assert [drift_section(page).count('class="own ') for page in (measured, released)] == [5 * 37] * 2


def test_models_without_drift_are_told_so_with_what_is_added_most(measured: str):
    assert drift_section(measured).count("own errors up to 1 step<") == 5
    assert "drifts at" not in measured


def test_first_tensor_that_drifts_is_named_and_marked(tmp_path: Path):
    workshop = Workshop(tmp_path, drifting="tflite-int8")
    section = drift_section(workshop.page(workshop.evidence()))
    assert section.count("drifts at act_20 (Conv)") == 3
    assert section.count('class="own bad"') == 3
    assert section.count('<b class="bad">14.00</b>') == 3


def test_a_build_without_walks_says_that_nothing_was_compared(tmp_path: Path):
    workshop = Workshop(tmp_path, drift_images=0)
    page = workshop.page(workshop.evidence())
    assert "verify.drift_images was 0" in drift_section(page)


@pytest.mark.parametrize("high", [0.4, 3.0, 14.2, 255.0])
def test_a_root_axis_has_zero_and_ticks_apart(high: float):
    axis = root_axis(high)
    places = [axis.place(tick) for tick in axis.ticks()]
    gaps = [after - before for before, after in pairwise(places)]
    assert (places[0], len(places) >= 3, min(gaps) >= 20) == (0, True, True)


def test_classes_stand_in_the_report_the_one_that_lost_most_first(tmp_path: Path):
    page = (Workshop(tmp_path, models=MODELS[2:3]).bundle() / "bundle/report.html").read_text()
    table = page[page.index("Top-1 by class") :]
    # mnn-int8 misses images 0 to 6, the student 0 to 3: of classes 4 to 6 it loses one of 36.
    assert table.index("digit 4") < table.index("digit 6") < table.index("digit 0")
    assert "−2.78" in table


def test_a_report_without_answers_says_nothing_of_classes(tmp_path: Path):
    page = (Workshop(tmp_path, models=MODELS[2:3], answers=False).bundle() / "bundle/report.html").read_text()
    assert "Top-1 by class" not in page


def test_of_many_classes_the_worst_twenty_are_shown(tmp_path: Path):
    many = tuple(f"class {index}" for index in range(30))
    page = (Workshop(tmp_path, models=MODELS[2:3], classes=many).bundle() / "bundle/report.html").read_text()
    assert "the 20 of 30 classes" in page
