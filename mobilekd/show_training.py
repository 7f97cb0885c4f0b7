"""Teacher and students on stdout."""

from collections.abc import Mapping
from typing import Any

from mobilekd.console import print_json, print_table
from mobilekd.units import percent

_HEADS = ("role", "network", "top-1 test", "top-1 validation", "parameters", "training", "from")


def show_training(result: Mapping[str, Any], *, as_json: bool) -> None:
    """Show what `train_result` returned: a line for each network, where the weights are, and what to look at."""
    if as_json:
        print_json(result)
        return
    print_table(_HEADS, [_cells(row) for row in result["networks"]])
    print(f"\nweights {result['student_weights']}")
    for one in result["diagnoses"]:
        print(f"\n{one['cause']} [{one['code']}]\n  seen: {one['evidence']}\n  try:  {one['next_step']}")


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        row["role"],
        row["network"],
        percent(row["top1_test"]),
        percent(row["top1_validation"]),
        f"{row['parameters']:,}",
        f"{row['seconds']:.1f} s",
        "cache" if row["cached"] else "this run",
    )
