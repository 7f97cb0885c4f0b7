"""What several teachers of one student are worth, each and together."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mobilekd.training.data import Images
    from mobilekd.training.objective import TeacherNetwork
    from mobilekd.training.strategy import Combine


@dataclass(frozen=True, slots=True)
class Judged:
    """Top-1 on the validation images, as fractions.

    Attributes:
        networks: Names of the teachers, that of the pipeline first.
        top1: Of each.
        together: Of their combined logits; "confidence" combines with the labels at hand, so this is no forecast.
        largest_class: Share of the images that are of the largest class: what guessing that class reaches.
    """

    networks: tuple[str, ...]
    top1: tuple[float, ...]
    together: float
    largest_class: float

    def facts(self) -> dict[str, object]:
        """Return what network.json has of them."""
        return {"extra_teachers_top1": list(self.top1[1:]), "teachers_together_top1": self.together}

    def told(self) -> list[str]:
        """Return one line with all of them, and a warning for each that is no better than a guess.

        Example:
            >>> Judged(("timm:a", "timm:b"), (0.9, 0.1), 0.6, 0.1).told()[0]
            'validation top-1 of the teachers: timm:a 90.00%, timm:b 10.00%, together 60.00%'
        """
        each = ", ".join(f"{name} {top1:.2%}" for name, top1 in zip(self.networks, self.top1, strict=True))
        poor = [
            f"warning: teacher {name} has {top1:.2%} top-1 on validation images, and the largest class alone is"
            f" {self.largest_class:.2%} of them: look at the order of its classes, the normalization it was trained"
            " with (data.normalization), and its checkpoint [MKD-809]"
            for name, top1 in zip(self.networks, self.top1, strict=True)
            if top1 <= self.largest_class
        ]
        return [f"validation top-1 of the teachers: {each}, together {self.together:.2%}", *poor]


def judged(
    names: Sequence[str], teachers: "Sequence[TeacherNetwork]", validation: "Images", combine: "Combine"
) -> Judged:
    """Ask each teacher about the validation images, on the CPU."""
    import numpy as np
    import torch
    from torch.nn.functional import one_hot

    from mobilekd.training.evaluation import predict, top1
    from mobilekd.training.objective import combined

    answers = [predict(one.network, validation) for one in teachers]
    labels = validation.labels
    targets = one_hot(torch.from_numpy(labels), len(validation.facts.classes)).float()
    weights = [one.weight for one in teachers]
    whole = combined([torch.from_numpy(one) for one in answers], targets, combine, weights).numpy()
    return Judged(
        networks=tuple(names),
        top1=tuple(top1(one, labels) for one in answers),
        together=top1(whole, labels),
        largest_class=float(np.bincount(labels).max() / len(labels)),
    )
