"""How much accuracy was lost between two models that answered the same images, and how sure that is."""

import math
from dataclasses import dataclass

import numpy as np

from mobilekd.release.answers import Classes, per_class_top1

_Z95 = 1.959964


@dataclass(frozen=True, slots=True)
class Drop:
    """A loss of top-1, as a fraction: positive when the later model is worse.

    Attributes:
        loss: Share of right answers before, less that after.
        low, high: 95 % interval of the loss, as if the images were drawn at random.
        images: How many were answered.
    """

    loss: float
    low: float
    high: float
    images: int

    def is_near(self, limit: float) -> bool:
        """Return whether a limit lies inside the interval: other images could turn the verdict."""
        return self.low <= limit <= self.high


def paired_drop(labels: Classes, before: Classes, after: Classes) -> Drop:
    """Return the loss of top-1 from one model to another on the same images.

    Args:
        labels: [images], not empty.
        before: Answers of the earlier model, [images].
        after: Answers of the later model, [images].

    Example:
        >>> right = np.zeros(98, np.uint16)
        >>> paired_drop(right, right, right)
        Drop(loss=0.0, low=-0.0196, high=0.0196, images=98)
    """
    lost = int(((before == labels) & (after != labels)).sum())
    won = int(((before != labels) & (after == labels)).sum())
    return counted_drop(lost, won, len(labels))


def counted_drop(lost: int, won: int, images: int) -> Drop:
    """Return the loss of top-1 by the images that only the one model, or only the other, gets right.

    The interval is Wald's with half an image added to each cell of the 2 x 2 table (Agresti & Min 2005,
    doi:10.1002/sim.1781): it keeps a width when no image differs.
    """
    total = images + 2
    middle = (lost - won) / total
    deviation = math.sqrt(max(0.0, lost + won + 1 - (lost - won) ** 2 / total)) / total
    low, high = max(-1.0, middle - _Z95 * deviation), min(1.0, middle + _Z95 * deviation)
    return Drop((lost - won) / images, round(low, 6), round(high, 6), images)


def largest_class_drop(labels: Classes, before: Classes, after: Classes, classes: int) -> tuple[int, Drop]:
    """Return the class that lost most from one model to another, and its loss; classes without images do not count."""
    losses = per_class_top1(labels, before, classes) - per_class_top1(labels, after, classes)
    worst = int(np.nanargmax(losses))
    part = labels == worst
    return worst, paired_drop(labels[part], before[part], after[part])
