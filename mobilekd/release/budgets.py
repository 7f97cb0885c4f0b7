"""The budgets of a profile, as the sentences that a bundle and its report carry."""

from collections.abc import Iterable, Sequence

from mobilekd.profile import Budget
from mobilekd.release.answers import load_answers
from mobilekd.release.evidence import Evidence
from mobilekd.release.gate_facts import Facts, Row, placed_rows
from mobilekd.release.gates import check
from mobilekd.release.manifest import Licence

_TOLD_ELSEWHERE = "p50_ms"  # where latency was measured stands in `not_measured` already


def evidence_facts(evidence: Evidence, parity: Sequence[Row], licences: tuple[Licence, ...]) -> Facts:
    """Return what the gates look at before a bundle is written.

    Args:
        evidence: What the earlier stages found.
        parity: Its parity rows, as the manifest carries them.
        licences: As the manifest carries them.
    """
    folder, classes = evidence.answers_path, evidence.dataset.classes
    names = [model.name for model in evidence.shipped]
    return Facts(
        name="the bundle",
        parity=parity,
        latency=placed_rows(evidence.latency, evidence.latency_rows),
        top1={"teacher": evidence.teacher.metrics.top1_test, "student": evidence.student.metrics.top1_test},
        licences=licences,
        answers=load_answers(folder, classes, names) if folder else None,
        labels=classes,
    )


def over_budget(budget: Budget, facts: Facts, keys: Iterable[str] | None = None) -> tuple[str, ...]:
    """Return a sentence for every budget that does not hold; empty when all do.

    Args:
        budget: An absent one is not checked.
        facts: What was built.
        keys: Check these budgets alone; all when None.
    """
    return tuple(gate.sentence() for gate in check(budget, facts, keys=keys) if gate.verdict == "over")


def unknown_budgets(budget: Budget, facts: Facts, keys: Iterable[str]) -> tuple[str, ...]:
    """Return a sentence for every budget that was set and not measured."""
    return tuple(
        gate.sentence()
        for gate in check(budget, facts, keys=[key for key in keys if key != _TOLD_ELSEWHERE])
        if gate.verdict == "not measured"
    )
