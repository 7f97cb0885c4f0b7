"""What it means that a model answers otherwise on the device than on this host, in words."""

from collections.abc import Mapping
from typing import Any

_REASONS = {
    "mnn": (
        "MNN on x86 shifts what a convolution reads by 128 and takes that out of the bias in float32, which sends "
        "values next to the middle of two steps to the other side; on Arm it does not"
    )
}
"""Why this host's kernels are not the device's, by backend; found tensor by tensor (docs/devices-exact.md)."""

_MOST_STEPS = 2
"""What a value on the other side of a middle was seen to become at the logits."""
_ARM = ("aarch64", "arm64", "armv8l")


def explained(row: Mapping[str, Any], host: str, machine: str) -> str:
    """Return sentences on an int8 model whose logits are not this host's to the bit; empty for every other one.

    Args:
        row: Of latency.json.
        host: This host, as latency.json names it.
        machine: The device's, as "aarch64".

    Example:
        >>> found = {"images": 200, "exact_images": 199, "max_steps": 1, "trained": None}
        >>> row = {"deployment": "a", "precision": "int8", "backend": "tflite", "on_device": found}
        >>> explained(row, "x (x86_64)", "aarch64")
        "a: 1 of 200 images is not this host's to the bit, by 1 step at most"
    """
    found = row.get("on_device")
    if not found or row["precision"] != "int8" or found["exact_images"] == found["images"]:
        return ""
    others = found["images"] - found["exact_images"]
    told = f"{row['deployment']}: {others} of {found['images']} images {'is' if others == 1 else 'are'} not this host's"
    sentences = [f"{told} to the bit{_at_most(found.get('max_steps'))}"]
    if trained := found.get("trained"):
        sentences.append(
            f"as trained are {trained['exact_images']} on the device{_at_most(trained['max_steps'])} and "
            f"{trained['host_exact_images']} on this host{_at_most(trained['host_max_steps'])}"
        )
    is_small = (found.get("max_steps") or 0) <= _MOST_STEPS
    if is_small and row["backend"] in _REASONS and "x86" in host and machine in _ARM:
        sentences.append(_REASONS[row["backend"]])
    return "; ".join(sentences)


def _at_most(steps: int | None) -> str:
    return "" if steps is None else f", by {steps} step{'s' * (steps != 1)} at most"
