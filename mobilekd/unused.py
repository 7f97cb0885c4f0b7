"""Options of a pipeline file that have no use beside what the command line says: left out, and told."""

import copy
from collections.abc import Mapping
from typing import Any

from mobilekd.stage import Stage
from mobilekd.validation import Origin, shown


def without_unused(
    stage: type[Stage], table: Mapping[str, Any], origin: Origin
) -> tuple[Mapping[str, Any], tuple[str, ...]]:
    """Return a stage's table without what `Stage.unused` names in the file, and a line for each of these.

    What the command line itself says stays, for the stage to refuse.

    Args:
        stage: Whose options they are.
        table: Of the file and the command line together, not yet checked.
        origin: Of this table.
    """
    inside = f"{origin.prefix}."
    chosen = {key.removeprefix(inside): text for key, text in origin.overrides.items() if key.startswith(inside)}
    kept, told = copy.deepcopy(dict(table)), []
    for key, why in stage.unused(table, chosen).items():
        if any(f"{one}.".startswith(f"{key}.") or f"{key}.".startswith(f"{one}.") for one in chosen):
            continue
        *above, last = key.split(".")
        inner = kept
        for part in above:
            inner = inner[part]
        told.append(f"{origin.path}: {inside}{key} = {shown(inner.pop(last))} is left out: {why}")
    return kept, tuple(told)
