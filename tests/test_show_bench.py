"""How a measurement looks on stdout: a number never stands without what it is and where it was taken."""

from typing import Any

import pytest

from mobilekd.show_bench import cost_cells, show_bench

COUNTED = {"total": 2_450_105, "smallest": 2_450_105, "largest": 2_450_105, "runs": 3, "classes": {}}
SAME = {"images": 200, "exact_images": 200, "same_answers": 200}
EMULATED = {"guest_instructions": COUNTED, "on_device": SAME, "ran_on": "emulated cortex-a76"}
TIMED = {"p50_ms": 1.2345, "ci95_ms": [1.2, 1.3], "latency_kind": "wall", "ran_on": "adb 0123"}


def test_counts_are_millions_of_instructions() -> None:
    assert cost_cells(EMULATED) == ("2.45 M instr.", "identical", "bit-exact, 200 images", "emulated cortex-a76")


def test_counts_that_differ_show_by_how_much() -> None:
    spread = COUNTED | {"total": 1000, "smallest": 995, "largest": 1005}
    assert cost_cells(EMULATED | {"guest_instructions": spread})[1] == "1.000 %"


def test_times_have_their_interval_and_their_kind() -> None:
    assert cost_cells(TIMED) == ("1.234 ms", "1.200-1.300 ms", "-", "wall adb 0123")


def test_times_without_an_interval_have_no_spread() -> None:
    assert cost_cells(TIMED | {"ci95_ms": None})[1] == "-"


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (SAME | {"images": 1, "exact_images": 1}, "bit-exact, 1 image"),
        (SAME | {"exact_images": 12}, "same answers, 12 of 200 bit-exact"),
        (SAME | {"exact_images": 12, "same_answers": 199}, "1 of 200 answers differ"),
    ],
)
def test_answers_are_exact_or_counted(found: dict[str, int], told: str) -> None:
    assert cost_cells(EMULATED | {"on_device": found})[2] == told


def test_a_model_that_was_not_measured_shows_why() -> None:
    assert cost_cells({"note": "no GPU here"}) == ("-", "-", "-", "no GPU here")


def test_no_row_at_all_is_told() -> None:
    assert cost_cells({})[3] == "not measured"


def shown(capsys: pytest.CaptureFixture[str], **changed: Any) -> str:
    row = {"deployment": "tflite-int8", **TIMED, "verdict": "steady"}
    document = {"models": [row], "ran_on": "adb 0123", "why": "", "worries": [], "comparison": None}
    show_bench({**document, **changed}, as_json=False)
    return capsys.readouterr().out


def test_the_table_has_the_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    assert "steady" in shown(capsys)


def test_the_reason_for_no_device_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert "not on a device: no phone is attached" in shown(capsys, why="no phone is attached")


def test_worries_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert "note: the governor is powersave" in shown(capsys, worries=["the governor is powersave"])


def test_a_model_that_is_not_exact_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    row = {"deployment": "mnn-int8", "precision": "int8", "backend": "mnn", **EMULATED}
    apart = {**row, "on_device": SAME | {"exact_images": 185, "max_steps": 2}}
    told = shown(capsys, models=[apart], host="AMD EPYC (x86_64)", device={"machine": "aarch64"})
    assert "note: mnn-int8: 15 of 200 images are not this host's to the bit, by 2 steps at most; MNN on x86" in told


BOARD = {"name": "Raspberry Pi 4 Model B", "machine": "aarch64", "system": "Linux 6.1"}


def test_a_board_is_named_as_it_names_itself(capsys: pytest.CaptureFixture[str]) -> None:
    told = shown(capsys, place="device", device=BOARD)
    assert "device: Raspberry Pi 4 Model B (aarch64), Linux 6.1\n" in told


def test_right_answers_on_the_device_are_told_where_it_has_labels(capsys: pytest.CaptureFixture[str]) -> None:
    row = {"deployment": "a", "precision": "int8", "backend": "tflite", **EMULATED, "on_device": SAME | {"top1": 0.975}}
    assert "bit-exact, 200 images, top-1 97.50 %" in shown(capsys, models=[row])


def test_one_image_is_explained_where_answers_were_compared(capsys: pytest.CaptureFixture[str]) -> None:
    row = {"deployment": "a", "precision": "int8", "backend": "tflite", **EMULATED}
    assert "\nnote: no test split\n" in shown(capsys, models=[row], images_note="no test split")
    assert "no test split" not in shown(capsys, images_note="no test split")


def test_the_comparison_stands_last(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(capsys, comparison={"told": "B is faster"}).endswith("\nB is faster\n")


PAGE = {"runtime": "onnxruntime-web 1.2", "host_cpu": "a CPU", "clock_us": 5.0, "is_sandboxed": True}


def test_a_page_tells_its_runtime_its_processor_and_its_clock(capsys: pytest.CaptureFixture[str]) -> None:
    assert "in the page: onnxruntime-web 1.2 on a CPU, 1 thread, clock in steps of 5 µs\n" in shown(capsys, device=PAGE)


def test_a_browser_without_its_sandbox_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert "without its sandbox" in shown(capsys, device=PAGE | {"is_sandboxed": False})
