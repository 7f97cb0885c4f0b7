"""The report of a build that was measured on an emulator, and of one that was measured on a device."""

import re
from pathlib import Path

import pytest

from mobilekd.release.evidence import Instructions, LatencyRow
from mobilekd.release.report_instructions import answers_table, instruction_table, spread_told

from .workshop import EMULATOR, Workshop


@pytest.fixture(scope="module")
def emulated(tmp_path_factory: pytest.TempPathFactory) -> str:
    workshop = Workshop(tmp_path_factory.mktemp("emulated"), place="emulator")
    return workshop.page(workshop.evidence())


def section(page: str, title: str) -> str:
    return page.partition(f"<h2>{title}</h2>")[2].partition("</section>")[0]


def line_of(page: str, model: str) -> str:
    lines = re.findall("<tr.*?</tr>", section(page, "Cost on the emulator"), flags=re.DOTALL)
    return next(line for line in lines if f">{model}<" in line)


def test_an_emulator_shows_no_time(emulated: str) -> None:
    assert section(emulated, "Latency") == ""
    assert not re.search(r"[0-9] ms\b", section(emulated, "Cost on the emulator"))


def test_the_section_says_what_counts_mean_and_why_it_was_no_device(emulated: str) -> None:
    told = section(emulated, "Cost on the emulator")
    assert f"Instructions of one inference on {EMULATOR}, 1 thread" in told
    assert "Not on a device: no phone is attached." in told


def test_every_counted_model_has_a_bar(emulated: str) -> None:
    counted = [line for line in re.findall("<tr.*?</tr>", emulated, flags=re.DOTALL) if "3 runs, " in line]
    assert len(counted) == 6
    assert all("<svg" in line for line in counted)


def test_a_line_has_the_total_its_classes_and_the_ratio_to_fp32(emulated: str) -> None:
    line = line_of(emulated, "tflite-int8")
    assert [text for text in ("412,000", "206,000", "41,200", "82,400", "2.33 ×") if text not in line] == []


def test_equal_counts_are_told_as_identical_and_others_by_how_much(emulated: str) -> None:
    assert "3 runs, identical" in line_of(emulated, "tflite-int8")
    assert "3 runs, 1.000 % apart" in line_of(emulated, "onnxruntime-int8")


def answers_of(page: str, model: str) -> list[str]:
    """Return the numbers of a model in the table of its answers on the emulator."""
    part = section(page, "Cost on the emulator").partition(f"Answers on {EMULATOR}")[2]
    line = next(one for one in re.findall("<tr.*?</tr>", part, flags=re.DOTALL) if f">{model}<" in one)
    return re.findall('<td class="n">(.*?)</td>', line)


@pytest.mark.parametrize(
    ("model", "numbers"),
    [
        ("tflite-int8", ["200", "200", "200", "0", "199 (199)", "98.61 % (98.61 %)"]),
        ("mnn-int8", ["200", "199", "197", "0.125", "–", "98.06 % (98.06 %)"]),
    ],
)
def test_answers_are_counted_against_the_host(emulated: str, model: str, numbers: list[str]) -> None:
    assert answers_of(emulated, model) == numbers


def test_a_model_that_is_not_exact_is_explained(emulated: str) -> None:
    part = section(emulated, "Cost on the emulator")
    assert "mnn-int8: 3 of 200 images are not this host" in part
    assert "tflite-int8: " not in part


def test_a_host_has_no_table_of_answers(tmp_path: Path) -> None:
    assert answers_table(Workshop(tmp_path).evidence()) == ""


def test_a_model_that_was_not_run_is_listed_with_its_note(emulated: str) -> None:
    assert "built, not run: no GPU on this host" in line_of(emulated, "tensorrt-int8")


def test_the_key_figure_is_the_fewest_instructions_of_a_shipped_model(emulated: str) -> None:
    assert f"<dt>Fewest instructions</dt><dd>0.41 M<small>tflite-int8, {EMULATOR}</small>" in emulated


def test_counts_are_not_the_latency_of_the_target(emulated: str) -> None:
    assert f"latency on the target: measured on {EMULATOR}" in emulated


def test_nothing_counted_is_no_table(tmp_path: Path) -> None:
    assert instruction_table(Workshop(tmp_path).evidence()) == ""


def test_spread_is_that_of_the_largest_and_smallest_run() -> None:
    assert spread_told(Instructions(total=1000, smallest=995, largest=1005, runs=5)) == "5 runs, 1.000 % apart"


def test_a_difference_that_is_no_number_can_be_read() -> None:
    row = {"images": 2, "exact_images": 1, "same_answers": 1, "max_difference": None, "top1": None, "host_top1": None}
    found = LatencyRow.model_validate({"deployment": "a", "backend": "b", "precision": "int8", "on_device": row})
    assert found.on_device is not None


def test_times_of_a_device_are_those_of_the_target(tmp_path: Path) -> None:
    workshop = Workshop(tmp_path, place="device")
    page = workshop.page(workshop.evidence())
    assert "Measured on adb 0123. Wall time" in section(page, "Latency")
    assert "not the times of the target" not in page
    assert "latency on the target: measured on" not in page


def test_what_can_bend_the_times_of_a_device_is_told(tmp_path: Path) -> None:
    workshop = Workshop(tmp_path, place="device", worries=("the governor is powersave",))
    assert "the governor is powersave" in section(workshop.page(workshop.evidence()), "Latency")
