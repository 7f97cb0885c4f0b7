"""The gates of a release, on stdout."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mobilekd.console import print_json, print_table
from mobilekd.release.gate_files import HEADS, cells, counted

if TYPE_CHECKING:
    from mobilekd.gating import Limits
    from mobilekd.release.gate_facts import Finished
    from mobilekd.release.gates import Gate


def show_gates(gates: "Sequence[Gate]") -> None:
    """Show a row for each budget and model, then how many hold."""
    if not gates:
        print("no budget is set: write [budget] into the profile, or give --budget KEY=VALUE")
        return
    print_table(HEADS, [cells(gate) for gate in gates])
    print(f"\n{counted(gates)}")


def show_gate(bundle: Path, finished: "Finished", limits: "Limits", gates: "Sequence[Gate]", *, as_json: bool) -> None:
    """Show the gates of one finished bundle."""
    if not as_json:
        show_gates(gates)
        return
    old = limits.against
    against = {"bundle": old.facts.name, "digest": old.digest} if old else None
    verdicts = [one for one in ("over", "not measured") if any(gate.verdict == one for gate in gates)]
    found = {"bundle": str(bundle), "digest": finished.digest, "profile": finished.profile, "against": against}
    print_json({**found, "verdict": (*verdicts, "holds")[0], "gates": [gate.to_json() for gate in gates]})
