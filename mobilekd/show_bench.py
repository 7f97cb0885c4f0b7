"""The result of a measurement on stdout: never a number without what it is and where it was taken."""

from collections.abc import Mapping, Sequence
from typing import Any

from mobilekd.benchmarking.agreement_told import explained
from mobilekd.console import print_json, print_table
from mobilekd.units import percent

Row = Mapping[str, Any]

_NOT_MEASURED = "not measured"
_LAYERS_SHOWN = 15
_HEADS = ("model", "cost", "spread", "on the device", "verdict", "measured on")


def show_bench(document: Row, *, as_json: bool) -> None:
    """Show what was measured, on what, and how far it can be trusted; and of two models, which one is faster."""
    if as_json:
        print_json(document)
        return
    print_table(_HEADS, [_cells({**row, "ran_on": document["ran_on"]}) for row in document["models"]])
    for row in document["models"]:
        _show_layers(row)
    if named := _browser(document) or _device(document):
        print(f"\n{named}")
    if document["why"]:
        print(f"\nnot on a device: {document['why']}")
    if any(row.get("on_device") for row in document["models"]) and document.get("images_note"):
        print(f"note: {document['images_note']}")
    for worry in document["worries"]:
        print(f"note: {worry}")
    for row in document["models"]:
        if sentence := explained(row, document.get("host", ""), (document.get("device") or {}).get("machine", "")):
            print(f"note: {sentence}")
    if told := document.get("comparison"):
        print(f"\n{told['told']}")


def _browser(document: Row) -> str:
    """Return what a page ran the models with; empty where none did."""
    facts = document.get("device") or {}
    if "runtime" not in facts:
        return ""
    threads = next((row["threads"] for row in document["models"] if row.get("threads")), 1)
    return (
        f"in the page: {facts['runtime']} on {facts['host_cpu']}, {threads} thread{'s' * (threads != 1)}, "
        f"clock in steps of {facts['clock_us']:g} µs"
        + ("" if facts["is_sandboxed"] else ", browser without its sandbox (root)")
    )


def _device(document: Row) -> str:
    """Return what a phone or board says of itself; empty where none was measured."""
    facts = document.get("device") or {}
    return (
        f"device: {facts['name']} ({facts['machine']}), {facts['system']}" if document.get("place") == "device" else ""
    )


def cost_cells(row: Row) -> tuple[str, str, str, str]:
    """Return what a model costs, how far that spreads, what it answered on the device, and where it was measured."""
    counted = row.get("guest_instructions")
    place = str(row.get("ran_on") or "-")
    if counted:
        return f"{counted['total'] / 1e6:.2f} M instr.", _counted_spread(counted), _answers(row), place
    if row.get("p50_ms") is None:
        return "-", "-", _answers(row), str(row.get("note") or _NOT_MEASURED)
    interval = row.get("ci95_ms")
    spread = f"{interval[0]:.3f}-{interval[1]:.3f} ms" if interval else "-"
    return f"{row['p50_ms']:.3f} ms", spread, _answers(row), " ".join(filter(None, (row.get("latency_kind"), place)))


def _show_layers(row: Row) -> None:
    """Show the most expensive layers, and all others as one line; nothing where they were not asked for."""
    layers = row.get("layers")
    if layers is None:
        return
    print(f"\n{row['deployment']}: what each layer costs")
    if not layers:
        print(f"not known: {row['layers_note']}")
        return
    rest = layers[_LAYERS_SHOWN:]
    lines = [(one["name"], one["operator"], layer_cost(one), f"{100 * one['share']:.1f} %") for one in layers]
    others = (
        [(f"{len(rest)} others", "", layer_cost(summed(rest)), f"{100 * summed(rest)['share']:.1f} %")] if rest else []
    )
    print_table(("layer", "operator", "cost", "share"), [*lines[:_LAYERS_SHOWN], *others])


def layer_cost(layer: Row) -> str:
    """Return what a layer costs, in its unit."""
    return f"{layer['instructions'] / 1e3:,.1f} k instr." if "instructions" in layer else f"{layer['ms']:.4f} ms"


def summed(layers: Sequence[Row]) -> Row:
    """Return the costs of some layers as those of one; they have one unit, and at least one of them is there."""
    return {key: sum(one[key] for one in layers) for key in ("ms", "instructions", "share") if key in layers[0]}


def _cells(row: Row) -> tuple[str, ...]:
    cost, spread, answers, place = cost_cells(row)
    top1 = (row.get("on_device") or {}).get("top1")
    answers += "" if top1 is None else f", top-1 {percent(top1)}"
    return str(row["deployment"]), cost, spread, answers, str(row.get("verdict") or "-"), place


def _counted_spread(counted: Row) -> str:
    if counted["smallest"] == counted["largest"]:
        return "identical"
    kernel = " with the kernel's" if counted.get("counted_by") == "icount" else ""
    return f"{100 * (counted['largest'] - counted['smallest']) / counted['total']:.3f} %{kernel}"


def _answers(row: Row) -> str:
    found = row.get("on_device")
    if not found:
        return "-"
    if found["exact_images"] == found["images"]:
        return f"bit-exact, {found['images']} image{'s' * (found['images'] != 1)}"
    if found["same_answers"] == found["images"]:
        return f"same answers, {found['exact_images']} of {found['images']} bit-exact"
    return f"{found['images'] - found['same_answers']} of {found['images']} answers differ"
