"""What changed between two releases, on stdout."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mobilekd.console import print_json, print_table
from mobilekd.units import percent, readable_bytes

if TYPE_CHECKING:
    from mobilekd.release.diff import Diff
    from mobilekd.release.diff_answers import AnswerChange
    from mobilekd.release.diff_cost import CostChange
    from mobilekd.release.diff_table import TableChange

_SHOWN = 5


def show_diff(diff: "Diff", page: Path | None, *, as_json: bool) -> None:
    """Show a diff: what breaks an app, accuracy, cost, table, licences; the page that has all of it."""
    if as_json:
        print_json({**diff.to_json(), "page": str(page) if page else None})
        return
    for word, side in (("old", diff.old), ("new", diff.new)):
        print(f"{word}  {side.path}\n     {side.pipeline} for {side.profile}, mobilekd {side.mobilekd}, {side.digest}")
    print()
    if diff.is_same:
        print("the same release: every file but the measurements is equal")
    else:
        _show_app(diff)
        _show_answers(diff)
    _show_costs(diff.costs)
    if not diff.is_same:
        _show_rest(diff)
    if page:
        print(f"page {page}")


def _show_app(diff: "Diff") -> None:
    if not diff.app:
        print("for an app: nothing changed (labels, preprocessing, files, inputs, outputs)\n")
        return
    print_table(
        ("for an app", "what", "old", "new", "so"),
        [(one.weight, one.subject, one.old, one.new, one.says) for one in diff.app],
    )
    print()


def _show_answers(diff: "Diff") -> None:
    if diff.not_compared:
        print(f"answers: not compared: {diff.not_compared}\n")
        return
    heads = (
        "top-1",
        "old",
        "new",
        "points",
        "95 % interval",
        "flipped",
        "right to wrong",
        "wrong to right",
        "most lost",
    )
    print_table(heads, [_answers(one) for one in diff.answers])
    print()


def _answers(one: "AnswerChange") -> tuple[str, ...]:
    worst = next((c for c in one.classes if c.new < c.old), None)
    lost = f"{worst.name}: {_points(worst.new - worst.old)}" if worst else "-"
    return (
        one.name,
        percent(one.old_top1),
        percent(one.new_top1),
        _points(-one.drop.loss),
        f"{_points(-one.drop.high)} to {_points(-one.drop.low)}",
        str(one.flips),
        str(len(one.lost)),
        str(len(one.won)),
        lost,
    )


def _points(difference: float) -> str:
    return f"{100 * difference + 0.0:+.2f}" if abs(difference) >= 5e-5 else "0.00"


def _show_costs(costs: Sequence["CostChange"]) -> None:
    if not costs:
        print("cost: not compared: no model is in both\n")
        return
    heads = ("cost", "old size", "new size", "measured", "old", "new", "ratio", "verdict", "by")
    print_table(heads, [_cost(one) for one in costs])
    print()


def _cost(one: "CostChange") -> tuple[str, ...]:
    ratio = f"{one.new / one.old:.3f}" if one.old and one.new else "-"
    costs = (_amount(one.old), _amount(one.new))
    sizes = (readable_bytes(one.old_bytes), readable_bytes(one.new_bytes))
    return (one.deployment, *sizes, one.kind or "-", *costs, ratio, one.verdict, one.reason)


def _amount(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _show_rest(diff: "Diff") -> None:
    if diff.operators:
        rows = [(one.deployment, one.operator, str(one.old), str(one.new)) for one in diff.operators]
        print_table(("layers", "operator", "old", "new"), rows)
        print()
    for line in _table_lines(diff.table):
        print(f"quantization table: {line}")
    for word, licences in (("gone", diff.licences_gone), ("new", diff.licences_new)):
        for licence in licences:
            print(f"licence {word}: {licence}")


def _table_lines(table: "TableChange") -> list[str]:
    found = [f"{table.same} tensors equal, {len(table.scales)} with other scales"]
    if table.scales:
        worst = table.scales[0]
        found.append(f"largest change of a scale: {worst.name} ({worst.role}), a factor of {worst.factor:.3g}")
    parts = {"gone": table.gone, "new": table.new, "changed": table.other}
    parts |= {"float now": table.to_float, "int8 now": table.to_int8}
    found += [f"{word}: {_few(names)}" for word, names in parts.items() if names]
    return found


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
