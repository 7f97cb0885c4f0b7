"""Commands that decide on a release."""

from mobilekd.options import (
    AgainstOption,
    BudgetOption,
    BundleArgument,
    JsonOption,
    JunitOption,
    MarkdownOption,
    StrictOption,
)


def gate(
    *,
    bundle: BundleArgument,
    against: AgainstOption = None,
    budget: BudgetOption = None,
    strict: StrictOption = False,
    junit: JunitOption = None,
    markdown: MarkdownOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check a finished bundle against its budgets, and against the last release; exit code 6 when one is over."""
    from mobilekd.gating import Outcome, limits_of
    from mobilekd.release.gate_facts import read_finished
    from mobilekd.show_gates import show_gate

    outcome = Outcome(strict, junit, markdown)
    outcome.check(bundle, against)
    finished = read_finished(bundle)
    limits = limits_of(finished.budget, budget, against)
    gates = limits.of_bundle(finished.facts)
    show_gate(bundle, finished, limits, gates, as_json=as_json)
    outcome.finish(bundle.name, gates)
