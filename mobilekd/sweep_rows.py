"""Rows of a sweep: means and deviations over seeds, the Pareto fronts, and the gain over students without a teacher."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mobilekd.artifacts import canonical_json
from mobilekd.units import percent

Row = Mapping[str, Any]

COSTS = (
    ("bytes", "on_front", "model size"),
    ("latency_ms", "on_latency_front", "latency p50, ms"),
    ("instructions", "on_instruction_front", "instructions of one inference"),
)


def group(done: Iterable[tuple[Row, Sequence[Row]]]) -> list[dict[str, Any]]:
    """Return a row for each combination, the best validation top-1 first.

    {"values", "runs", "top1_validation", "top1_validation_std", "top1_test", "top1_test_std", "parameters", "bytes",
    "bytes_of", "seconds", "latency_ms", "instructions", "latency_of", "over_alone", "over_alone_std", "diagnoses",
    "on_front", "on_latency_front", "on_instruction_front"}: means over seeds; a deviation is that of a sample (n - 1),
    None for one seed; over_alone is the gain in test top-1 over the same network and seed without a teacher, diagnoses
    are what that comparison found, seed by seed; the fronts are those of validation top-1 against bytes, time and
    instructions.

    Args:
        done: Values of a combination, and its students, one a seed; a combination that comes twice counts once.
    """
    kept = {canonical_json(dict(values)): (values, runs) for values, runs in done}
    rows = sorted((_row(values, runs) for values, runs in kept.values()), key=lambda row: -row["top1_validation"])
    for cost, mark, _ in COSTS:
        known = [row for row in rows if row[cost] is not None]
        marks = pareto_front([row[cost] for row in known], [row["top1_validation"] for row in known])
        for row, is_on in zip(known, marks, strict=True):
            row[mark] = is_on
    return rows


def pareto_front(costs: Sequence[float], gains: Sequence[float]) -> list[bool]:
    """Return for each point whether no other costs at most as much and gains at least as much, and differs in one.

    Example:
        >>> pareto_front([1, 2, 2, 3], [0.5, 0.7, 0.6, 0.7])
        [True, True, False, False]
    """
    points = list(zip(costs, gains, strict=True))
    return [
        not any(other != (cost, gain) and other[0] <= cost and other[1] >= gain for other in points)
        for cost, gain in points
    ]


def named(values: Row) -> str:
    """Return a combination as text."""
    return ", ".join(f"{key}={value}" for key, value in values.items())


def spread(row: Row, key: str) -> str:
    """Return a mean and its deviation as text."""
    deviation = row[f"{key}_std"]
    return percent(row[key]) if deviation is None else f"{100 * row[key]:.2f} ± {100 * deviation:.2f} %"


def _row(values: Row, runs: Sequence[Row]) -> dict[str, Any]:
    return {
        "values": dict(values),
        "runs": list(runs),
        **_mean_and_std("top1_validation", runs),
        **_mean_and_std("top1_test", runs),
        **{key: runs[0][key] for key in ("parameters", "bytes", "bytes_of", "latency_of")},
        "seconds": round(statistics.fmean(run["seconds"] for run in runs), 3),
        **{key: _mean_of_known(key, runs) for key in ("latency_ms", "instructions")},
        **_against_alone(runs),
        **{mark: False for _, mark, _ in COSTS},
    }


def _mean_of_known(key: str, runs: Sequence[Row]) -> float | None:
    known = [run[key] for run in runs if run.get(key) is not None]
    return statistics.fmean(known) if known else None


def _mean_and_std(key: str, runs: Sequence[Row]) -> dict[str, float | None]:
    known = [run[key] for run in runs]
    return {key: statistics.fmean(known), f"{key}_std": statistics.stdev(known) if len(known) > 1 else None}


def _against_alone(runs: Sequence[Row]) -> dict[str, Any]:
    known = [run for run in runs if run.get("alone_top1_test") is not None]
    if not known:
        return {"over_alone": None, "over_alone_std": None, "diagnoses": []}
    gains = [{"over_alone": run["top1_test"] - run["alone_top1_test"]} for run in known]
    worse = [{"seed": run["seed"], **one} for run in known for one in run["diagnoses"]]
    return {**_mean_and_std("over_alone", gains), "diagnoses": worse}
