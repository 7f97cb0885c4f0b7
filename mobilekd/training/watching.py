"""What a run tells while it goes on; measured values stay out of the history, which is part of an artifact's digest."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

PULL = "pull/"
"""Before a term's name in a record: the L2 norm of its gradient to the network's weights, in one micro-batch."""


@dataclass(frozen=True, slots=True)
class Speed:
    """How fast an epoch was trained, without its validation.

    Attributes:
        images_per_s: Of all processes together.
        peak_bytes: Largest device memory of this process so far; on the CPU its largest resident set.
        seconds: Of the part of the epoch that this process trained.
        data_wait: Share of `seconds` in which the loop waited for images, 0 to 1.
    """

    images_per_s: float
    peak_bytes: int
    seconds: float
    data_wait: float = 0.0


class Watch(Protocol):
    """Somebody who follows a run."""

    def epoch(self, record: Mapping[str, float], speed: Speed) -> None:
        """Take the record of an epoch as the history has it, and its speed."""
