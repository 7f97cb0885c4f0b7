"""How the answers of two releases differ, image by image and class by class."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mobilekd.release.answers import LABELS, Answers, Classes, per_class_top1
from mobilekd.release.paired import Drop, paired_drop


@dataclass(frozen=True, slots=True)
class ClassTop1:
    """Top-1 of one class in both releases, as a fraction of its images."""

    name: str
    images: int
    old: float
    new: float


@dataclass(frozen=True, slots=True)
class Flip:
    """One image of the test split whose answer changed; `label`, `old` and `new` are names of classes."""

    image: int
    label: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class AnswerChange:
    """One network or deployment in both releases.

    Attributes:
        old_top1, new_top1: Fractions of all images.
        drop: What was lost, with its interval; negative when the new release is better.
        lost, won, other: Images that were right and are wrong, the reverse, and that are wrong in another way.
        classes: Those whose top-1 changed, the largest loss first.
    """

    name: str
    old_top1: float
    new_top1: float
    drop: Drop
    lost: tuple[Flip, ...]
    won: tuple[Flip, ...]
    other: tuple[Flip, ...]
    classes: tuple[ClassTop1, ...]

    @property
    def flips(self) -> int:
        """Return how many answers changed."""
        return len(self.lost) + len(self.won) + len(self.other)


def answer_changes(old: Answers, new: Answers) -> tuple[AnswerChange, ...]:
    """Return how every network and deployment that both releases have answers otherwise.

    Answers are compared by the names of their classes, so labels in another order are no flip.
    """
    order = np.array([old.classes.index(name) for name in new.classes], np.uint16)
    pairs = _pairs(old.networks, new.networks) | _pairs(old.deployed, new.deployed)
    return tuple(_change(name, old, was, order[now]) for name, (was, now) in pairs.items() if name != LABELS)


def why_not_compared(old: Answers | None, new: Answers | None) -> str:
    """Return why the answers of two releases can't be compared; empty when they can."""
    for which, one in (("OLD", old), ("NEW", new)):
        if one is None:
            return f"{which} carries no answers: an older mobilekd built it"
    assert old is not None
    assert new is not None
    if sorted(old.classes) != sorted(new.classes) or len(set(old.classes)) != len(old.classes):
        return "the two releases do not know the same classes"
    if old.images != new.images or _named(old) != _named(new):
        return f"they were tested on other images ({old.images} and {new.images})"
    return ""


def _named(answers: Answers) -> list[str]:
    return [answers.classes[at] for at in answers.labels]


def _pairs(old: Mapping[str, Classes], new: Mapping[str, Classes]) -> dict[str, tuple[Classes, Classes]]:
    return {name: (old[name], new[name]) for name in old if name in new}


def _change(name: str, old: Answers, was: Classes, now: Classes) -> AnswerChange:
    labels = old.labels
    before, after, moved = was == labels, now == labels, was != now

    def flips(which: NDArray[np.bool_]) -> tuple[Flip, ...]:
        names = old.classes
        return tuple(Flip(int(at), names[labels[at]], names[was[at]], names[now[at]]) for at in np.flatnonzero(which))

    return AnswerChange(
        name=name,
        old_top1=float(before.mean()),
        new_top1=float(after.mean()),
        drop=paired_drop(labels, was, now),
        lost=flips(before & ~after),
        won=flips(~before & after),
        other=flips(moved & ~before & ~after),
        classes=_classes(old, was, now),
    )


def _classes(old: Answers, was: Classes, now: Classes) -> tuple[ClassTop1, ...]:
    count = len(old.classes)
    before, after = (per_class_top1(old.labels, one, count) for one in (was, now))
    images = np.bincount(old.labels, minlength=count)
    changed = [
        ClassTop1(old.classes[at], int(images[at]), float(before[at]), float(after[at]))
        for at in range(count)
        if images[at] and before[at] != after[at]
    ]
    return tuple(sorted(changed, key=lambda one: one.new - one.old))
