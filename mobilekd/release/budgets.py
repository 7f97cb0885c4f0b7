"""Does a build hold the budgets of its profile?"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mobilekd.profile import Profile

Row = Mapping[str, Any]

OVER_BUDGET_HINT = "the bundle is built; the budgets stand in [budget] of the profile"
_CODES = {"model_bytes": "MKD-601", "top1_drop": "MKD-602", "p50_ms": "MKD-603"}


def over_budget(profile: Profile, parity: Sequence[Row], latency: Sequence[Row]) -> tuple[str, ...]:
    """Return a sentence for every budget that does not hold; empty when all do.

    Args:
        profile: Whose budgets; an absent one is not checked.
        parity: Rows of parity.json. `top1_teacher` is read where it is present; without it the loss is not checked.
        latency: Rows of latency.json. Only those measured on the target (`on_target` is true) are checked.
    """
    worst = _worst_by_deployment(row for row in parity if row.get("ships", True))
    on_target = [row for row in latency if row.get("ships", True) and row.get("on_target")]
    sentences = [
        *(_bytes_sentence(profile, row) for row in worst),
        *(_top1_sentence(profile, row) for row in worst),
        *(_latency_sentence(profile, row) for row in on_target),
    ]
    return tuple(sentence for sentence in sentences if sentence)


def budget_code(sentences: Sequence[str]) -> str:
    """Return the code of the first budget that does not hold; empty where it has none of its own.

    Example:
        >>> budget_code(["tflite-int8: 4.1 MB model, budget 4.0 MB (budget.model_bytes): raise the budget"])
        'MKD-601'
    """
    return next((code for key, code in _CODES.items() if f"(budget.{key})" in sentences[0]), "")


def _worst_by_deployment(rows: Iterable[Row]) -> list[Row]:
    """Return one row per deployment: the kernel set with the lowest top-1."""
    worst: dict[str, Row] = {}
    for row in rows:
        kept = worst.setdefault(row["deployment"], row)
        if _top1(row) < _top1(kept):
            worst[row["deployment"]] = row
    return list(worst.values())


def _top1(row: Row) -> float:
    top1 = row.get("top1_deployed")
    return 1.0 if top1 is None else float(top1)


def _bytes_sentence(profile: Profile, row: Row) -> str:
    limit, found = profile.budget.model_bytes, row.get("bytes")
    if limit is None or found is None or found <= limit:
        return ""
    return (
        f"{row['deployment']}: {found / 1e6:.1f} MB model, budget {limit / 1e6:.1f} MB (budget.model_bytes): "
        "pick a smaller student or raise the budget"
    )


def _top1_sentence(profile: Profile, row: Row) -> str:
    limit, teacher, deployed = profile.budget.top1_drop, row.get("top1_teacher"), row.get("top1_deployed")
    if limit is None or teacher is None or deployed is None:
        return ""
    drop = teacher - deployed
    if drop <= limit + 1e-9:  # 0.98 - 0.97 is 0.010000000000000009
        return ""
    return (
        f"{row['deployment']}: top-1 is {100 * drop:.2f} points below the teacher's, budget {100 * limit:.2f} points "
        "(budget.top1_drop): train longer, pick a bigger student or raise the budget"
    )


def _latency_sentence(profile: Profile, row: Row) -> str:
    limit, found = profile.budget.p50_ms, row.get("p50_ms")
    if limit is None or found is None or found <= limit:
        return ""
    return (
        f"{row['deployment']}: median latency {found:.3g} ms, budget {limit:.3g} ms (budget.p50_ms): "
        "pick a smaller student, another backend or raise the budget"
    )
