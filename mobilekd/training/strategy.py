"""Which terms a distillation has, and with which weights; no tensor is touched here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from mobilekd.method import Method, Reads

Combine = Literal["mean", "weighted", "confidence"]

_KD_SHARE = 0.9


@dataclass(frozen=True, slots=True)
class Part:
    """One method of a distillation.

    Attributes:
        name: Of the method.
        method: With its options and its final weight.
        student, teacher: The one pair of modules that it compares; empty for all stages.
    """

    name: str
    method: Method
    student: str = ""
    teacher: str = ""

    @property
    def label(self) -> str:
        """Return the name, and what tells it from another part with the same method."""
        return f"{self.name}@{self.student}" if self.student else self.name

    def __str__(self) -> str:
        """Return the part as `Strategy.describe` shows it, as "0.9 kd(temperature 4)"."""
        fields = type(self.method).model_fields
        own_first = sorted(fields, key=lambda name: name in Method.model_fields)
        values = {name: getattr(self.method, name) for name in own_first if name != "weight"}
        told = [
            f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"
            for name, value in values.items()
            if name == "temperature" or value != fields[name].default
        ]
        pair = [f"{self.student} from {self.teacher}"] if self.student else []
        shown = ", ".join([*pair, *told])
        return f"{self.method.weight:g} {self.name}" + (f"({shown})" if shown else "")


@dataclass(frozen=True, slots=True)
class Strategy:
    """A distillation loss: hard_weight * cross-entropy + the parts.

    Attributes:
        hard_weight: Of the cross-entropy with the labels.
        parts: Methods for all stages, and pairs of layers.
        soft_first: Share of the run with the methods on logits alone, before all parts and the labels count.
        combine: How the logits of several teachers become one; see `combined` in objective.py.
        student_stages, teacher_stages: Modules to compare; empty: found by `tap_paths`.
    """

    hard_weight: float
    parts: tuple[Part, ...]
    soft_first: float = 0.0
    combine: Combine = "mean"
    student_stages: tuple[str, ...] = ()
    teacher_stages: tuple[str, ...] = ()

    def uses_features(self) -> bool:
        """Return whether the teacher has to run although its logits are cached."""
        return any(part.method.uses_features() for part in self.parts)

    def reads(self, what: Reads) -> bool:
        """Return whether a part for all stages reads this."""
        return any(what in part.method.reads for part in self.parts if not part.student)

    def weights_at(self, progress: float) -> tuple[float, list[tuple[Part, float]]]:
        """Return the weight of the labels and the parts that count at a point of the run, 0 to 1."""
        is_first = progress < self.soft_first
        parts = [part for part in self.parts if not (is_first and part.method.uses_features())]
        weighted = [(part, part.method.weight_at(progress)) for part in parts]
        return 0.0 if is_first else self.hard_weight, [(part, weight) for part, weight in weighted if weight]

    def describe(self) -> str:
        """Return the loss in one line, as "0.1 hard + 0.9 kd(temperature 4) + 1000 attention_transfer"."""
        terms = [f"{self.hard_weight:g} hard"] if self.hard_weight else []
        line = " + ".join([*terms, *(str(part) for part in self.parts if part.method.weight)])
        return f"{line}; the first {self.soft_first:.0%} of the run on logits alone" if self.soft_first else line

    def teacher_use(self, *, is_cached: bool) -> str:
        """Return in words when the teacher runs; `is_cached`: what the methods read of it is kept."""
        readers = [
            f"{part.name} reads its {' and '.join(sorted(part.method.reads - {'logits'}))}"
            for part in self.parts
            if part.method.uses_features() and part.method.weight
        ]
        if not any(part.method.weight for part in self.parts):
            return "the teacher does not run: no method has a weight"
        if readers and not is_cached:
            return f"the teacher runs in every step: {', '.join(dict.fromkeys(readers))}"
        return "the teacher runs once for each image and view" if is_cached else "the teacher runs in every step"

    def born_again(self) -> "Strategy":
        """Return the strategy of a student whose one teacher is a network like itself."""
        parts = tuple(replace(part, teacher=part.student) for part in self.parts)
        return replace(self, parts=parts, combine="mean", teacher_stages=self.student_stages)


def settled(
    methods: Mapping[str, Method], soft_weight: float | None, kd: Method, layers: Sequence[Part] = ()
) -> Strategy:
    """Return the strategy of some methods, its weights settled.

    | soft_weight | methods on logits                | others     | hard            |
    | a           | a * their own weight; none: + kd | their own  | 1 - a           |
    | None        | kd 0.9 * its own; their own      | their own  | 0.1 with kd, else 1 |

    Args:
        methods: By name, each with its own weight.
        soft_weight: Share of the teacher's logits in the loss, 0 to 1; papers call it alpha, some the other way round.
        kd: What is added where soft_weight is above 0 and no method reads logits alone.
        layers: Pairs of layers; their weights stay.
    """
    share = _KD_SHARE if soft_weight is None and "kd" in methods else soft_weight
    chosen = dict(methods)
    if soft_weight and all(one.uses_features() for one in chosen.values()):
        chosen = {"kd": kd, **chosen}
    scaled = [
        name for name, one in chosen.items() if not one.uses_features() and (soft_weight is not None or name == "kd")
    ]
    factors = {name: share if share is not None and name in scaled else 1.0 for name in chosen}
    parts = [
        Part(name, one.model_copy(update={"weight": round(one.weight * factors[name], 12)}))
        for name, one in chosen.items()
    ]
    hard = round(1 - share, 12) if share is not None else 1.0
    return Strategy(hard, (*parts, *layers))
