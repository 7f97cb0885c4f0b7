"""What went wrong in a distillation, read from its curves: causes with their numbers, and what to try next."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from mobilekd.artifacts import write_json
from mobilekd.training.watching import PULL

Record = Mapping[str, float]

FILE = "diagnoses.json"
NOT_TERMS = frozenset(
    {"epoch", "lr", "loss", "top1", "train_top1", "seconds", "images_per_s", "peak_bytes", "grad_norm", "scale"}
)
"""Keys of a history record that are no term of the loss."""
LOGIT_TERMS = frozenset({"hard", "soft"})
"""Terms that compare answers; every other one compares features."""

_OVERFIT_GAP = 0.1
_NEAR_TEACHER = 0.005
_TEMPERATURES = (2.0, 5.0)
_DOMINATES = 3.0  # hint that spoilt a ResNet-8 (FitNets, weight 100): 4 to 7; one that helped (weight 4): 0.2 to 0.6
_STUCK_SHARE = 0.02
_STILL_FALLING = 0.02
_LEAST_EPOCHS = 4
_SMALL_RATES = {"adamw": 3e-4, "sgd": 3e-2}
_CODES = {
    "MKD-801": ("over-fitted",),
    "MKD-802": ("is stuck",),
    "MKD-803": ("learning rate is too small",),
    "MKD-804": ("drowns the others",),
    "MKD-805": ("temperature is outside",),
    "MKD-806": ("as good as its teacher", "almost reached its teacher"),
    "MKD-807": ("worse than the same network trained alone",),
}
"""Code -> words of the causes it stands for. Not kept in the file of a run: a stage that is cached has it too."""


@dataclass(frozen=True, slots=True)
class DistillFacts:
    """What a diagnosis looks at; top-1 as fractions, None where it is not known.

    Attributes:
        history: Records of the student, an epoch each.
        student_top1, teacher_top1: On the test split.
        teacher_train_top1, teacher_validation_top1: Of the teacher, on images it has and has not learned from.
        temperature: Of the term `kd`; None without it.
        learning_rate: Peak.
        optimizer: "adamw" or "sgd".
        feature_terms: Names of the terms that compare features; None takes all but "hard" and "soft".
    """

    history: Sequence[Record]
    student_top1: float
    teacher_top1: float
    temperature: float | None
    learning_rate: float
    optimizer: str = "adamw"
    teacher_train_top1: float | None = None
    teacher_validation_top1: float | None = None
    feature_terms: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """One finding: what is wrong, the numbers that say so, and what to try."""

    cause: str
    evidence: str
    next_step: str

    @property
    def code(self) -> str:
        """Return the code under which `mobilekd explain` says more; empty for a cause of another version."""
        return next((code for code, words in _CODES.items() if any(word in self.cause for word in words)), "")


def diagnose(facts: DistillFacts) -> list[Diagnosis]:
    """Return what the numbers of a run speak against, in the order in which to mend it; empty for a healthy run.

    Example:
        >>> facts = DistillFacts([], student_top1=0.9, teacher_top1=0.95, temperature=20.0, learning_rate=1e-3)
        >>> [one.cause for one in diagnose(facts)]
        ['the temperature is outside 2 to 5']
    """
    rules: tuple[Callable[[DistillFacts], Diagnosis | None], ...] = (
        _overfitted_teacher,
        _stuck,
        _rate_too_small,
        _dominated,
        _temperature,
        _near_teacher,
    )
    return [found for rule in rules if (found := rule(facts))]


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
    """Return by term how hard it pulled at the network's weights when this was last measured; empty if it never was.

    Example:
        >>> pulls_of([{"epoch": 1.0, "pull/hard": 0.5, "pull/hint": 40.0}, {"epoch": 2.0}])
        {'hard': 0.5, 'hint': 40.0}
    """
    for record in reversed(history):
        if found := {name.removeprefix(PULL): value for name, value in record.items() if name.startswith(PULL)}:
            return found
    return {}


def against_alone(student_top1: float, alone_top1: float) -> Diagnosis | None:
    """Return the finding that distillation did not help; None when it did."""
    if student_top1 >= alone_top1:
        return None
    return Diagnosis(
        "the student is worse than the same network trained alone",
        f"test top-1 {student_top1:.2%} with the teacher, {alone_top1:.2%} without",
        "lower soft_weight (--alpha), try method kd alone, or a teacher nearer in size to the student",
    )


def with_alone(found: Sequence[Diagnosis], student_top1: float, alone_top1: float | None) -> list[Diagnosis]:
    """Return what the stage of the student found, and whether the student trained alone, if there is one, is better."""
    worse = against_alone(student_top1, alone_top1) if alone_top1 is not None else None
    return [*found, worse] if worse else list(found)


def write_diagnoses(path: Path, found: Sequence[Diagnosis]) -> None:
    """Write diagnoses.json: a list of {"cause", "evidence", "next_step"}."""
    write_json(path, [asdict(one) for one in found])


def read_diagnoses(path: Path) -> list[Diagnosis]:
    """Return what `write_diagnoses` wrote; empty when there is no such file."""
    if not path.is_file():
        return []
    return [Diagnosis(**one) for one in json.loads(path.read_text(encoding="utf-8"))]


def _overfitted_teacher(facts: DistillFacts) -> Diagnosis | None:
    train, held_out = facts.teacher_train_top1, facts.teacher_validation_top1
    if train is None or held_out is None or train - held_out <= _OVERFIT_GAP:
        return None
    return Diagnosis(
        "the teacher is over-fitted",
        f"its top-1 is {train:.2%} on training images and {held_out:.2%} on validation images, "
        f"{100 * (train - held_out):.1f} points apart (more than {100 * _OVERFIT_GAP:.0f})",
        "train it for fewer epochs (teacher.epochs), raise teacher.weight_decay or teacher.label_smoothing, "
        "or augment its images",
    )


def _temperature(facts: DistillFacts) -> Diagnosis | None:
    low, high = _TEMPERATURES
    if facts.temperature is None or low <= facts.temperature <= high:
        return None
    effect = "the teacher's answer is nearly the label" if facts.temperature < low else "all classes look nearly alike"
    return Diagnosis(
        f"the temperature is outside {low:g} to {high:g}",
        f"distill.temperature is {facts.temperature:g}: {effect}",
        f"try --temperature {low:g}, 4 or {high:g}: mobilekd sweep --set-choice distill.temperature=2,4,5",
    )


def _dominated(facts: DistillFacts) -> Diagnosis | None:
    pulls, known = pulls_of(facts.history), facts.feature_terms
    features = [name for name in pulls if (name not in LOGIT_TERMS if known is None else name in known)]
    if not features:
        return None
    name = max(features, key=pulls.__getitem__)
    others = sum(value for other, value in pulls.items() if other != name)
    if not others or pulls[name] <= _DOMINATES * others:
        return None
    return Diagnosis(
        f"the feature term {name!r} drowns the others",
        f"its gradient to the student's weights has the norm {pulls[name]:.4g}, all others together {others:.4g}",
        f"lower its weight in distill.method_options, about to {others / pulls[name]:.2g} of what it is",
    )


def _falls(facts: DistillFacts) -> tuple[float, float, float] | None:
    """Return the loss at the start, a quarter before the end, and at the end; None for a run too short to tell."""
    losses = [record["loss"] for record in facts.history]
    if len(losses) < _LEAST_EPOCHS:
        return None
    return losses[0], losses[-1 - max(1, len(losses) // 4)], losses[-1]


def _stuck(facts: DistillFacts) -> Diagnosis | None:
    falls = _falls(facts)
    if falls is None or falls[0] - min(record["loss"] for record in facts.history) > _STUCK_SHARE * abs(falls[0]):
        return None
    return Diagnosis(
        "the loss is stuck",
        f"it is {falls[0]:.4g} in the first epoch and {falls[2]:.4g} in the last of {len(facts.history)}",
        f"change the learning rate ({facts.learning_rate:g}): a tenth if the loss jumps, ten times if it is flat; "
        "then look at labels and normalization",
    )


def _rate_too_small(facts: DistillFacts) -> Diagnosis | None:
    """Judge by the last quarter: with a cosine schedule a loss that has learned enough is flat there."""
    falls = _falls(facts)
    if falls is None or facts.learning_rate >= _SMALL_RATES.get(facts.optimizer, _SMALL_RATES["adamw"]):
        return None
    start, before, end = falls
    quarter = max(1, len(facts.history) // 4)
    pace, mean_pace = (before - end) / quarter, (start - end) / (len(facts.history) - 1)
    if (
        start - end <= _STUCK_SHARE * abs(start)
        or pace < 0.5 * mean_pace
        or before - end < _STILL_FALLING * abs(before)
    ):
        return None
    return Diagnosis(
        "the learning rate is too small for so few epochs",
        f"the loss still falls by {pace:.3g} an epoch in the last {quarter} epochs, on the whole by {mean_pace:.3g}; "
        f"the peak rate is {facts.learning_rate:g}",
        f"--set distill.learning_rate={3 * facts.learning_rate:g}, or more --epochs than {len(facts.history)}",
    )


def _near_teacher(facts: DistillFacts) -> Diagnosis | None:
    if facts.student_top1 < facts.teacher_top1 - _NEAR_TEACHER:
        return None
    is_level = facts.student_top1 >= facts.teacher_top1
    return Diagnosis(
        "the student is as good as its teacher" if is_level else "the student has almost reached its teacher",
        f"test top-1 {facts.student_top1:.2%}, the teacher's {facts.teacher_top1:.2%}",
        "this teacher has nothing left to give: take a better teacher, or a smaller student",
    )
