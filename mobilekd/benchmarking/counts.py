"""Which of two models takes fewer instructions, beyond what two counts of one file differ by."""

from collections.abc import Mapping
from typing import Any

_SHARES: Mapping[str, Mapping[str, float]] = {
    "plug-in": {"tflite": 0.0, "onnxruntime": 0.001, "mnn": 0.001},
    "icount": {"tflite": 0.0, "onnxruntime": 0.003, "mnn": 0.001},
}
"""Largest relative difference of two counts of one file, rounded up, by how it was counted and by backend: ONNX Runtime
and MNN allocate memory in a run, and the path through `malloc` depends on what the process did before
(docs/devices-counting.md)."""
_MOST = 0.003
_STEPS: Mapping[str, int] = {"plug-in": 0, "icount": 16}
"""What the clock of a virtual machine is read in."""


def compare_counts(models: tuple[Mapping[str, Any], Mapping[str, Any]]) -> dict[str, Any]:
    """Return how the second of two counted models compares with the first: `verdict`, `ratio`, `margin`, `told`.

    Args:
        models: Rows of latency.json.

    Example:
        >>> counts = {"backend": "mnn", "guest_instructions": {"counted_by": "icount", "total": 1_511_600}}
        >>> compare_counts(({**counts, "deployment": "A"}, {**counts, "deployment": "B"}))["told"]
        'equal: B takes 1.0000 times the instructions of A (counted, not timed; margin 0.101 %)'
    """
    first, second = (float(one["guest_instructions"]["total"]) for one in models)
    names = [one["deployment"] for one in models]
    ratio, margin = second / first, max(_margin(one, first) for one in models)
    verdict = "equal" if abs(ratio - 1) <= margin else "fewer" if ratio < 1 else "more"
    evidence = f"counted, not timed; margin {100 * margin:.3g} %" if margin else "counted, not timed"
    told = f"{verdict}: {names[1]} takes {ratio:.{_digits(ratio)}f} times the instructions of {names[0]} ({evidence})"
    return {"verdict": verdict, "ratio": ratio, "margin": margin, "told": told}


def _margin(model: Mapping[str, Any], count: float) -> float:
    counted_by = model["guest_instructions"]["counted_by"]
    return _SHARES[counted_by].get(model["backend"], _MOST) + _STEPS[counted_by] / count


def _digits(ratio: float) -> int:
    """Return how many decimals tell a ratio from 1 where it differs."""
    return 4 if abs(ratio - 1) < 0.01 else 3
