"""Results on stdout: a table for people, one JSON object for scripts."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobilekd.config import shipped_folder, shipped_names
from mobilekd.console import print_json, print_table
from mobilekd.errors import ConfigError
from mobilekd.plan import PlannedStage
from mobilekd.plugins import BACKENDS, METHODS, STAGES, TRANSPORTS, choices
from mobilekd.show_bench import cost_cells
from mobilekd.show_gates import show_gates
from mobilekd.toml_file import read_toml
from mobilekd.units import percent, readable_bytes

if TYPE_CHECKING:
    from mobilekd.doctor import Check
    from mobilekd.prune import Usage
    from mobilekd.release.gates import Gate
    from mobilekd.toolchain import ToolchainStatus

Row = Mapping[str, Any]

_PLUGINS = {plugins.kind: plugins for plugins in (METHODS, BACKENDS, TRANSPORTS, STAGES)}
_MODEL_HEADS = ("model", "parity", "bytes", "top-1", "agreement", "cost", "spread", "on the device", "measured on")


def show_build(summary: Row, gates: "Sequence[Gate]" = (), *, as_json: bool) -> None:
    """Show what was built: a line for each model, whether it holds its budgets, and where the files are."""
    if as_json:
        print_json(summary)
        return
    latency = {row["deployment"]: row for row in summary["latency"]}
    parity = {row["deployment"]: row for row in reversed(summary["parity"])}  # the first kernel set stands for a model
    if parity:
        cells = [_model_cells(row, latency.get(name, {})) for name, row in reversed(parity.items())]
        print_table(_MODEL_HEADS, cells)
        print()
    if gates:
        show_gates(gates)
        print()
    for word in ("bundle", "folder", "report", "digest"):
        if summary[word]:
            print(f"{word:<7} {summary[word]}")


def show_plan(planned: Sequence[PlannedStage], *, as_json: bool) -> None:
    """Show what a build would do, with time and size of the last time."""
    stages = [_plan_row(one) for one in planned]
    runs = [one for one in stages if not one["cached"]]
    estimate = sum(one["last_seconds"] or 0 for one in runs)
    if as_json:
        print_json({"stages": stages, "runs": len(runs), "estimated_seconds": round(estimate, 1)})
        return
    rows = [
        (one["name"], "reuse" if one["cached"] else "run", one["why"], _seconds(one), readable_bytes(one["last_bytes"]))
        for one in stages
    ]
    print_table(("stage", "does", "why", "last time", "size"), rows)
    _show_outlines(stages)
    unknown = sum(one["last_seconds"] is None for one in runs)
    never = f"; {unknown} of them never ran here, their time is not known" if unknown else ""
    print(f"\n{len(runs)} of {len(stages)} stages run; by the last time about {estimate:.0f} s{never}")


def show_checks(checks: "Sequence[Check]", *, as_json: bool) -> None:
    """Show the doctor's report."""
    if as_json:
        print_json({"checks": [asdict(one) for one in checks]})
        return
    rows = [(one.area, one.name, "ok" if one.is_ok else "missing", one.detail, one.mend) for one in checks]
    print_table(("area", "what", "state", "detail", "to mend"), rows)


def show_toolchains(states: "Mapping[str, ToolchainStatus]", *, as_json: bool) -> None:
    """Show the converters' environments."""
    if as_json:
        document = {name: {**asdict(state), "path": str(state.path)} for name, state in states.items()}
        print_json({"toolchains": document})
        return
    rows = [(name, "ready" if state.ready else "-", state.detail, str(state.path)) for name, state in states.items()]
    print_table(("toolchain", "state", "detail", "path"), rows)


def show_usage(root: Path, usages: "Sequence[Usage]", *, as_json: bool) -> None:
    """Show how much each stage keeps in the cache."""
    if as_json:
        print_json({"root": str(root), "stages": [asdict(one) for one in usages]})
        return
    print_table(
        ("stage", "entries", "size"), [(one.name, str(one.entries), readable_bytes(one.size_bytes)) for one in usages]
    )
    print(f"\n{readable_bytes(sum(one.size_bytes for one in usages))} in {root}")


def show_names(kind: str, *, as_json: bool) -> None:
    """Show the names that a pipeline or profile file may use.

    Raises:
        ConfigError: There is no such kind of thing.
    """
    titles = {"profiles": lambda: _titles("devices"), "pipelines": lambda: _titles("pipelines")}
    if kind not in {*_PLUGINS, *titles}:
        raise ConfigError(f"there are no {kind!r} to list", hint=choices(kind, (*_PLUGINS, *titles)), code="MKD-206")
    found = titles[kind]() if kind in titles else dict.fromkeys(_PLUGINS[kind].names(), "")
    if as_json:
        print_json({kind: sorted(found)})
        return
    for name, title in found.items():
        print(f"{name:<16} {title}".rstrip())


def _titles(kind: Any) -> dict[str, str]:
    documents = {name: read_toml(shipped_folder(kind) / f"{name}.toml") for name in shipped_names(kind)}
    return {name: str(document.get("title") or document.get("description", "")) for name, document in documents.items()}


def _plan_row(one: PlannedStage) -> dict[str, Any]:
    return {
        "name": one.stage.label(),
        "key": one.key or None,
        "cached": one.entry is not None,
        "why": one.why,
        "outline": dict(one.stage.outline()),
        "last_seconds": one.last.seconds if one.last else None,
        "last_bytes": one.last.size_bytes if one.last else None,
    }


def _show_outlines(stages: Sequence[Row]) -> None:
    """Show what the stages of a plan say of themselves, below the table."""
    told = [f"{one['name']}: {'; '.join(one['outline'].values())}" for one in stages if one["outline"]]
    if told:
        print("", *told, sep="\n")


def _model_cells(parity: Row, latency: Row) -> tuple[str, ...]:
    return (
        str(parity["deployment"]),
        str(parity["status"]),
        readable_bytes(parity.get("bytes")),
        percent(parity.get("top1_deployed")),
        percent(parity.get("top1_agreement")),
        *cost_cells(latency),
    )


def _seconds(row: Row) -> str:
    return "-" if row["last_seconds"] is None else f"{row['last_seconds']:.1f} s"
