"""What the records of a run hold: the terms of its loss, and how hard each pulled."""

import statistics
from collections.abc import Mapping, Sequence

from mobilekd.training.watching import PULL

Record = Mapping[str, float]

NOT_TERMS = frozenset(
    {"epoch", "lr", "loss", "top1", "train_top1", "seconds", "images_per_s", "peak_bytes", "grad_norm", "scale"}
)
"""Keys of a history record that are no term of the loss."""

_LOOKS = (0.1, 0.6)


def terms_of(record: Record) -> dict[str, float]:
    """Return the terms of the loss in a history record.

    Example:
        >>> terms_of({"epoch": 1.0, "lr": 0.1, "loss": 2.0, "hard": 0.5, "soft": 1.5, "top1": 0.4})
        {'hard': 0.5, 'soft': 1.5}
    """
    return {
        name: value
        for name, value in record.items()
        if name not in NOT_TERMS and not name.startswith(PULL) and isinstance(value, int | float)
    }


def pulls_of(history: Sequence[Record]) -> dict[str, float]:
    """Return by term how hard it pulled: the median over the looks from a tenth to six tenths of a run; or nothing.

    Where a run begins all gradients are large, and where it ends they balance, also those that have spoilt it.

    Example:
        >>> pulls_of([{"epoch": 1.0, "pull/hard": 0.5, "pull/hint": 40.0}, {"epoch": 2.0, "pull/hard": 8.0}])
        {'hard': 0.5, 'hint': 40.0}
    """
    looks: dict[str, list[float]] = {}
    for number, record in enumerate(history, start=1):
        if _LOOKS[0] <= number / len(history) <= _LOOKS[1]:
            for name, value in record.items():
                if name.startswith(PULL):
                    looks.setdefault(name.removeprefix(PULL), []).append(value)
    return {name: statistics.median(values) for name, values in looks.items()}
