from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from mobilekd.profile import Budget
from mobilekd.release.budgets import over_budget
from mobilekd.release.gate_facts import Facts

Row = Mapping[str, Any]

ROW = {"deployment": "tflite-int8", "ships": True, "bytes": 9_100_000, "top1_deployed": 0.97, "top1_teacher": 0.98}


def _over(parity: Sequence[Row], latency: Sequence[Row] = (), **limits: float) -> tuple[str, ...]:
    return over_budget(Budget.model_validate(limits), Facts("the build", parity, latency))


def test_a_big_model_is_named_with_both_sizes_and_the_key():
    assert _over([ROW], model_bytes=8_000_000) == (
        "tflite-int8: 9.1 MB model, budget 8.0 MB (budget.model_bytes): pick a smaller student or raise the budget",
    )


def test_a_model_of_exactly_the_budget_holds_it():
    assert _over([ROW], model_bytes=9_100_000) == ()


def test_a_loss_of_exactly_the_budget_holds_it():
    assert _over([ROW], top1_drop=0.01) == ()


def test_a_loss_past_the_budget_is_told_in_points():
    (sentence,) = _over([ROW], top1_drop=0.009)
    assert sentence.startswith("tflite-int8: top-1 is 1.00 points below the teacher's, budget 0.90 points")


def test_the_worst_kernels_of_a_deployment_count_once():
    rows = [ROW, ROW | {"top1_deployed": 0.90}, ROW | {"top1_deployed": 0.95}]
    (sentence,) = _over(rows, top1_drop=0.02)
    assert "8.00 points" in sentence


def test_a_baseline_has_no_budget():
    assert _over([ROW | {"ships": False}], model_bytes=1) == ()


def test_an_absent_budget_is_not_checked():
    assert _over([ROW], [{"deployment": "x", "p50_ms": 1e9, "on_target": True}]) == ()


def test_a_model_that_was_not_run_has_no_top1_to_check():
    assert _over([{"deployment": "x", "bytes": None, "top1_teacher": 1.0}], top1_drop=0.0) == ()


def test_latency_on_the_target_is_checked():
    row = {"deployment": "tflite-int8", "p50_ms": 12.34, "on_target": True}
    (sentence,) = _over([], [row], p50_ms=10.0)
    assert sentence.startswith("tflite-int8: median latency 12.3 ms, budget 10 ms (budget.p50_ms)")


@pytest.mark.parametrize("row", [{"on_target": False}, {}, {"on_target": True, "ships": False}])
def test_latency_elsewhere_is_not_checked(row: dict[str, bool]):
    assert _over([], [{"deployment": "x", "p50_ms": 99.0, **row}], p50_ms=10.0) == ()
