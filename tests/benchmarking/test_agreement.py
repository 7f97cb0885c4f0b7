"""Hand-worked comparisons of logits."""

import json
from dataclasses import asdict

import numpy as np
import pytest

from mobilekd.benchmarking.agreement import agree, refusals

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
