"""What each layer costs in int8, on stdout."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mobilekd.console import print_json, print_table
from mobilekd.units import percent, readable_bytes

_HEADS = ("layer", "operator", "weights", "MACs", "top-1 lost", "KL (nats)")

Report = Mapping[str, Any]


def show_sensitivity(folder: Path, *, as_json: bool) -> None:
    """Show sensitivity.json of an artifact: the layers, the worst first, and what max_top1_drop keeps in float."""
    report: Report = json.loads((folder / "sensitivity.json").read_text(encoding="utf-8"))
    if as_json:
        print_json(report)
        return
    print(
        f"top-1 on {report['images']} {report['split']} images: {percent(report['top1_float'])} in float, "
        f"{percent(report['top1_int8'])} calibrated in int8. Each layer alone in int8, the worst first:\n"
    )
    print_table(_HEADS, [_cells(row) for row in report["layers"]])
    if report["keep_float"]:
        print(f"\nin float by keep_float: {', '.join(report['keep_float'])}")
    if report["mixed"]:
        _show_mixed(report["mixed"])


def _cells(row: Report) -> tuple[str, ...]:
    return (
        row["layer"],
        row["operator"],
        f"{row['weights']:,}",
        f"{row['macs']:,}",
        f"{100 * row['top1_drop']:.2f}",
        f"{row['kl']:.6f}",
    )


def _show_mixed(mixed: Report) -> None:
    print(f"\nmax_top1_drop {percent(mixed['max_top1_drop'])}: {', '.join(mixed['layers']) or 'no layer'} in float")
    print(
        f"  top-1 on the whole split: {percent(mixed['top1_float'])} float, {percent(mixed['top1_int8'])} int8, "
        f"{percent(mixed['top1_mixed'])} mixed"
    )
    print(
        f"  price: {readable_bytes(mixed['extra_bytes'])} more, {percent(mixed['float_macs_share'])} of the "
        "multiply-accumulates in float"
    )
    if times := mixed["host_wall_ms"]:
        print(f"  {times['int8']:.3f} ms int8, {times['mixed']:.3f} ms mixed: {times['note']}")
