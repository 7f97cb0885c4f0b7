"""Rows, fronts, gains and plots of a sweep."""

import pytest

from mobilekd.sweep_plot import pareto_svg
from mobilekd.sweep_report import cells
from mobilekd.sweep_rows import group, pareto_front

RUN = {"top1_validation": 0.9, "top1_test": 0.8, "parameters": 10, "bytes": 10, "bytes_of": "x", "seconds": 1.0}
RUN |= {"latency_of": "", "seed": 0, "diagnoses": []}


def test_a_student_is_compared_with_the_same_seed_alone() -> None:
    gains = [(0.9, 0.7), (0.8, 0.7)]
    runs = [RUN | {"top1_test": test, "alone_top1_test": alone} for test, alone in gains]
    (row,) = group([({"a": 1}, runs)])
    assert row["over_alone"] == pytest.approx(0.15)
    assert row["over_alone_std"] == pytest.approx(0.1 / 2**0.5)
    assert "+15.00 ± 7.07 points" in cells(row, ["a"], baseline=True)


def test_a_finding_of_a_seed_against_alone_is_one_of_the_row() -> None:
    worse = {"alone_top1_test": 0.9, "seed": 1, "diagnoses": [{"code": "MKD-807"}]}
    (row,) = group([({"a": 1}, [RUN | {"alone_top1_test": 0.7}, RUN | worse])])
    assert row["diagnoses"] == [{"seed": 1, "code": "MKD-807"}]


def test_a_row_without_a_baseline_has_no_gain() -> None:
    (row,) = group([({"a": 1}, [RUN])])
    assert (row["over_alone"], row["diagnoses"]) == (None, [])


def test_a_point_that_another_beats_in_both_is_not_on_the_front() -> None:
    assert pareto_front([10, 20, 20, 5], [0.9, 0.95, 0.9, 0.8]) == [True, True, False, True]


def test_latency_gives_a_plot_of_its_own() -> None:
    run = {"top1_validation": 0.9, "top1_test": 0.8, "parameters": 10, "bytes": 10, "bytes_of": "x", "seconds": 1.0}
    rows = group([({"a": n}, [{**run, "latency_ms": n, "latency_of": "host"}]) for n in (1.0, 2.0)])
    assert [one["on_latency_front"] for one in rows] == [True, False]
    assert "validation top-1 against latency" in pareto_svg(rows)


def test_instructions_give_a_front_and_a_plot_of_their_own() -> None:
    run = {"top1_validation": 0.9, "top1_test": 0.8, "parameters": 10, "bytes": 10, "bytes_of": "x", "seconds": 1.0}
    place = {"latency_ms": None, "latency_of": "emulated cortex-a76"}
    rows = group([({"a": n}, [{**run, **place, "instructions": n}]) for n in (2e6, 1e6)])
    assert [(one["on_instruction_front"], one["on_latency_front"]) for one in rows] == [(False, False), (True, False)]
    assert pareto_svg(rows).count('class="title"') == 2
    assert "validation top-1 against instructions of one inference" in pareto_svg(rows)


def test_a_row_shows_instructions_where_there_is_no_time() -> None:
    run = {"top1_validation": 0.9, "top1_test": 0.8, "parameters": 10, "bytes": 10, "bytes_of": "x", "seconds": 1.0}
    counted = {"latency_ms": None, "latency_of": "emulated cortex-a76", "instructions": 2_450_105}
    (row,) = group([({"a": 1}, [run | counted])])
    assert "2.45 M instr." in cells(row, ["a"])
