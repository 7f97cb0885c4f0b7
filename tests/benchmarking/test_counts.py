"""Two counts of one file are equal, and a difference beyond that is told."""

from typing import Any

import pytest

from mobilekd.benchmarking.counts import compare_counts


def counted(name: str, total: int, backend: str, by: str) -> dict[str, Any]:
    return {"deployment": name, "backend": backend, "guest_instructions": {"total": total, "counted_by": by}}


def compared(first: int, second: int, backend: str, by: str = "plug-in") -> dict[str, Any]:
    return compare_counts((counted("A", first, backend, by), counted("B", second, backend, by)))


@pytest.mark.parametrize(
    ("backend", "by", "first", "second"),
    [
        ("onnxruntime", "icount", 1_891_248, 1_888_400),
        ("onnxruntime", "icount", 1_887_376, 1_888_912),
        ("mnn", "icount", 1_511_600, 1_511_616),
        ("tflite", "icount", 722_928, 722_944),
        ("tflite", "plug-in", 722_351, 722_351),
        ("onnxruntime", "plug-in", 1_890_026, 1_890_922),
    ],
)
def test_what_one_file_was_seen_to_differ_by_is_equal(backend: str, by: str, first: int, second: int) -> None:
    assert compared(first, second, backend, by)["verdict"] == "equal"


@pytest.mark.parametrize(
    ("backend", "by", "second", "verdict"),
    [
        ("tflite", "plug-in", 1_000_001, "more"),
        ("tflite", "plug-in", 999_999, "fewer"),
        ("tflite", "icount", 1_000_032, "more"),
        ("onnxruntime", "plug-in", 1_001_001, "more"),
        ("onnxruntime", "icount", 996_000, "fewer"),
        ("mnn", "icount", 998_000, "fewer"),
    ],
)
def test_more_than_that_is_a_difference(backend: str, by: str, second: int, verdict: str) -> None:
    assert compared(1_000_000, second, backend, by)["verdict"] == verdict


def test_of_two_runtimes_the_larger_margin_counts() -> None:
    first, second = counted("A", 1_000_000, "tflite", "plug-in"), counted("B", 1_000_900, "onnxruntime", "plug-in")
    assert compare_counts((first, second))["verdict"] == "equal"


def test_a_difference_of_less_than_a_thousandth_is_still_seen_in_the_sentence() -> None:
    assert compared(1_000_000, 1_000_900, "tflite")["told"] == (
        "more: B takes 1.0009 times the instructions of A (counted, not timed)"
    )


@pytest.mark.parametrize("second", [500_000, 2_000_000])
def test_exchanging_the_models_exchanges_the_verdict(second: int) -> None:
    verdicts = {compared(1_000_000, second, "mnn")["verdict"], compared(second, 1_000_000, "mnn")["verdict"]}
    assert verdicts == {"fewer", "more"}
