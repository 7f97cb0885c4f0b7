"""Hand-worked comparisons of logits."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from mobilekd.benchmarking.agreement import FromTrained, Trained, agree, read_trained, refusals
from mobilekd.benchmarking.agreement_told import explained
from mobilekd.quant_table import QuantTable, TensorQuant, save_table

HOST = np.float32([[1, 2, 3], [9, 5, 1], [0, 4, 2], [7, 7, 8]])
LABELS = np.array([2, 0, 2, 2])


def device(row: int, logits: list[float]) -> "np.ndarray":
    """Return the host's logits with one image's replaced."""
    changed = HOST.copy()
    changed[row] = logits
    return changed


def test_equal_logits_are_exact() -> None:
    found = agree(HOST, HOST.copy(), LABELS)
    assert (found.is_exact, found.images, found.same_answers, found.max_difference) == (True, 4, 4, 0.0)
    assert (found.top1, found.host_top1) == (0.75, 0.75)


def test_a_small_difference_changes_an_image_and_no_answer() -> None:
    found = agree(device(1, [9, 5.25, 1]), HOST, LABELS)
    assert (found.is_exact, found.exact_images, found.same_answers, found.max_difference) == (False, 3, 4, 0.25)


def test_a_changed_answer_moves_top1_of_the_device_only() -> None:
    found = agree(device(0, [1, 4, 3]), HOST, LABELS)
    assert (found.same_answers, found.top1, found.host_top1) == (3, 0.5, 0.75)


def test_without_labels_there_is_no_top1() -> None:
    found = agree(HOST, HOST)
    assert (found.top1, found.host_top1) == (None, None)


def test_both_are_measured_in_steps_from_the_trained_network() -> None:
    trained = Trained(np.float32([[1, 2, 3], [9.5, 5, 1], [0, 2, 4], [7, 7, 8]]), step=0.5)
    found = agree(device(1, [9.5, 5, 1]), HOST, LABELS, trained)
    assert found.trained == FromTrained(3, 2, 3, 3, 4, 4)
    assert found.max_steps == 1


def test_the_trained_logits_may_be_of_more_images() -> None:
    trained = Trained(HOST, step=0.5)
    assert agree(HOST[:2], HOST[:2], None, trained).trained == FromTrained(2, 2, 2, 2, 0, 0)


def test_two_float32_forms_of_one_step_are_as_trained() -> None:
    found = agree(HOST * np.float32(1 + 2**-22), HOST, None, Trained(HOST, step=0.5))
    assert found.trained == FromTrained(4, 4, 4, 4, 0, 0)


def test_a_nan_is_not_as_trained() -> None:
    found = agree(device(1, [9, np.nan, 1]), HOST, None, Trained(HOST, step=0.5))
    assert found.trained == FromTrained(3, 4, 3, 4, None, 0)


@pytest.mark.parametrize(("tensor", "step"), [("logits", 0.25), ("relu", None)])
def test_a_float_output_has_no_step(tmp_path: Path, tensor: str, step: float | None) -> None:
    table = QuantTable((TensorQuant(tensor, "activation", "int8", (0.25,), (0,), None, -128, 127),))
    save_table(table, tmp_path / "table.json")
    np.save(tmp_path / "logits.npy", HOST)
    found = read_trained(tmp_path / "logits.npy", tmp_path / "table.json")
    assert (found.step if found else None) == step


X86 = "AMD EPYC (x86_64)"
APART = {"images": 200, "exact_images": 185, "max_steps": 2, "trained": None}
NEAR = {"exact_images": 193, "max_steps": 1, "host_exact_images": 181, "host_max_steps": 2}


def told(host: str = X86, backend: str = "mnn", machine: str = "aarch64", **changed: object) -> str:
    row = {"deployment": "m", "precision": "int8", "backend": backend, "on_device": {**APART, **changed}}
    return explained(row, host, machine)


def test_images_that_differ_are_told_with_their_steps() -> None:
    assert told(backend="tflite") == "m: 15 of 200 images are not this host's to the bit, by 2 steps at most"


def test_who_is_nearer_to_the_trained_network_is_told() -> None:
    found = told(backend="tflite", trained=NEAR)
    assert found.endswith(
        "; as trained are 193 on the device, by 1 step at most and 181 on this host, by 2 steps at most"
    )


def test_what_this_host_computes_otherwise_is_told() -> None:
    assert "MNN on x86 shifts" in told()


def test_a_host_with_the_kernels_of_the_device_has_no_such_reason() -> None:
    assert "MNN on x86" not in told("Cortex-A76 (aarch64)")


def test_a_device_with_the_kernels_of_this_host_has_no_such_reason() -> None:
    assert "MNN on x86" not in told(machine="x86_64")


@pytest.mark.parametrize(
    "row", [{}, {"on_device": APART | {"exact_images": 200}}, {"on_device": APART, "precision": "fp32"}]
)
def test_nothing_is_told_of_a_model_that_is_exact_or_float_or_was_not_compared(row) -> None:
    assert explained({"deployment": "m", "precision": "int8", "backend": "mnn", **row}, X86, "aarch64") == ""


BROKEN = device(2, [0, np.nan, 2])


@pytest.mark.parametrize(("found", "expected"), [(BROKEN, HOST), (HOST, BROKEN), (BROKEN, BROKEN)])
def test_an_image_with_a_nan_is_neither_exact_nor_the_same_answer(found, expected) -> None:
    told = agree(found, expected, LABELS)
    assert (told.exact_images, told.same_answers, told.max_difference) == (3, 3, None)


def test_a_nan_is_no_right_answer() -> None:
    broken = device(0, [1, 2, np.nan])  # argmax takes a NaN for the largest, and class 2 is the label
    assert agree(broken, HOST, LABELS).top1 == 0.5


def test_equal_infinities_are_exact() -> None:
    infinite = device(3, [0, 0, np.inf])
    found = agree(infinite, infinite.copy(), LABELS)
    assert (found.is_exact, found.max_difference) == (True, 0.0)


def test_a_comparison_with_a_nan_can_be_written_as_json() -> None:
    found = agree(device(0, [np.nan] * 3), HOST, LABELS)
    assert json.loads(json.dumps(asdict(found), allow_nan=False))["max_difference"] is None


def test_minus_zero_is_zero() -> None:
    assert agree(np.float32([[-0.0, 1]]), np.float32([[0.0, 1]])).is_exact


def row(same: int, **changed: object) -> dict[str, object]:
    found = {"images": 200, "exact_images": 0, "same_answers": same, "max_difference": 0.5}
    return {"deployment": "mnn-int8", "ships": True, "precision": "int8", "on_device": found, **changed}


def test_answers_below_the_least_share_are_told_with_their_number() -> None:
    (told,) = refusals([row(197)], 0.99, "adb 0123")
    assert told == (
        "mnn-int8 on adb 0123: 3 of 200 answers are not this host's (allowed 1 %); logits differ by up to 0.5"
    )


@pytest.mark.parametrize(
    "held",
    [
        row(198),
        row(0, ships=False),
        row(0, precision="fp32"),
        row(0, on_device=None),
    ],
    ids=["exactly the least share", "a baseline", "a float model", "nothing compared"],
)
def test_these_are_not_refused(held: dict[str, object]) -> None:
    assert refusals([held], 0.99, "adb 0123") == ()
