"""Where deployed models drift from the network that was trained, on stdout."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

from mobilekd.console import print_json, print_table
from mobilekd.drift import DEFAULT_BOUND_STEPS, MEAN_PART, TensorDrift, Walk, first_drift, told, worst_tensor
from mobilekd.errors import VerificationError

if TYPE_CHECKING:
    from mobilekd.release.recorded import DriftRecord

_AROUND = 3
_HEADS = ("", "tensor", "operator", "own max", "own mean", "error max", "error mean", "off > 0.5", "cosine")


def show_drift(record: "DriftRecord", bound: float | None, *, as_json: bool) -> None:
    """Show for each model the first tensor past the bound with its neighbours, or that there is none."""
    bound_steps = DEFAULT_BOUND_STEPS if bound is None else bound
    if as_json:
        print_json(_document(record, bound_steps))
        return
    print(
        f"bound: own error of {bound_steps:g} steps, {MEAN_PART * bound_steps:g} on average; {record.images} images\n"
    )
    for walk in record.walks:
        _show_walk(walk, bound_steps)
    for name in record.not_walked:
        print(f"{name}: not compared: it did not run where the bundle was built")


def check_drift(record: "DriftRecord", bound: float | None) -> None:
    """Refuse a bundle with a tensor past the bound.

    Raises:
        VerificationError: Names the tensor of each model.
    """
    bound_steps = DEFAULT_BOUND_STEPS if bound is None else bound
    drifts = [(walk, first) for walk in record.walks if (first := first_drift(walk.tensors, bound_steps))]
    if drifts:
        lines = (f"{_name(walk)}: {first.name!r} ({first.operator})" for walk, first in drifts)
        raise VerificationError(
            "first tensor past the bound:\n  " + "\n  ".join(lines),
            hint="docs/parity.md says how to read the walk; --bound STEPS sets another bound",
            code="MKD-703",
        )


def _show_walk(walk: Walk, bound_steps: float) -> None:
    compared = f"{len(walk.tensors)} of {len(walk.tensors) + len(walk.absent)} tensors compared"
    first = first_drift(walk.tensors, bound_steps)
    if first is None:
        print(f"{_name(walk)}: no tensor passes the bound; {compared}")
        print(f"  largest: {told(worst_tensor(walk.tensors))}\n")
        return
    print(f"{_name(walk)}: {first.name!r} ({first.operator}) is the first tensor past the bound; {compared}")
    place = walk.tensors.index(first)
    around = walk.tensors[max(0, place - _AROUND) : place + _AROUND + 1]
    print_table(_HEADS, [_cells(one, ">" if one is first else "") for one in around])
    print()


def _cells(one: TensorDrift, mark: str) -> tuple[str, ...]:
    return (
        mark,
        one.name,
        one.operator,
        f"{one.own_max_error_steps:.3g}",
        f"{one.own_mean_error_steps:.3g}",
        f"{one.max_error_steps:.3g}",
        f"{one.mean_error_steps:.3g}",
        f"{one.share_off:.2%}",
        f"{one.cosine:.5f}",
    )


def _document(record: "DriftRecord", bound_steps: float) -> dict[str, object]:
    return {
        "bound_steps": bound_steps,
        "bound_mean_steps": round(MEAN_PART * bound_steps, 6),
        "images": record.images,
        "drift": list(_walk_documents(record, bound_steps)),
        "not_compared": list(record.not_walked),
    }


def _walk_documents(record: "DriftRecord", bound_steps: float) -> Iterator[dict[str, object]]:
    for walk in record.walks:
        first = first_drift(walk.tensors, bound_steps)
        yield {
            "deployment": walk.deployment,
            "kernels": walk.kernels,
            "first": asdict(first) if first else None,
            "worst": asdict(worst_tensor(walk.tensors)),
            "tensors": [asdict(one) for one in walk.tensors],
            "absent": list(walk.absent),
        }


def _name(walk: Walk) -> str:
    return f"{walk.deployment} ({walk.kernels})"
