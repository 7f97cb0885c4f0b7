"""What went wrong in a distillation, read from its curves: causes with their numbers, and what to try next."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from mobilekd.artifacts import write_json
from mobilekd.training.history import Record, pulls_of

FILE = "diagnoses.json"
LOGIT_TERMS = frozenset({"hard", "soft"})
"""Terms that compare answers; every other one compares features."""

_OVERFIT_GAP = 0.1
_NEAR_TEACHER = 0.005
_WIDE = 0.05  # two standard errors of a top-1; with a wider one nobody can say that two are near each other
_TEMPERATURES = (2.0, 5.0)
_DOMINATES = 3.0  # a hint that spoilt a ResNet-8 (FitNets, weight 100) had 12, one that helped (weight 4) 0.2
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
    "MKD-809": ("no better than the largest class",),
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
        largest_class: Share of the test images that are of the commonest class; None where it is not known.
        test_images: How many there are; 0 where it is not known.
        teacher: Name of its network: with an assistant it is not the first of the build.
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
    largest_class: float | None = None
    test_images: int = 0
    teacher: str = "the teacher"

    def error_of(self, top1: float) -> float:
        """Return the standard error of a top-1 on the test images, as a fraction; 0 where their number is not known."""
        return math.sqrt(top1 * (1 - top1) / self.test_images) if self.test_images else 0.0


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
        _useless_teacher,
        _overfitted_teacher,
        _stuck,
        _rate_too_small,
        _dominated,
        _temperature,
        _near_teacher,
    )
    return [found for rule in rules if (found := rule(facts))]


def write_diagnoses(path: Path, found: Sequence[Diagnosis]) -> None:
    """Write diagnoses.json: a list of {"cause", "evidence", "next_step"}."""
    write_json(path, [asdict(one) for one in found])


def read_diagnoses(path: Path) -> list[Diagnosis]:
    """Return what `write_diagnoses` wrote; empty when there is no such file."""
    if not path.is_file():
        return []
    return [Diagnosis(**one) for one in json.loads(path.read_text(encoding="utf-8"))]


def _useless_teacher(facts: DistillFacts) -> Diagnosis | None:
    if facts.largest_class is None or facts.teacher_top1 > facts.largest_class + 2 * facts.error_of(
        facts.largest_class
    ):
        return None
    return Diagnosis(
        "the teacher is no better than the largest class",
        f"the test top-1 of {facts.teacher} is {facts.teacher_top1:.2%}, and of the {facts.test_images} test images"
        f" {facts.largest_class:.2%} are of one class",
        "check the order of the classes, data.normalization and teacher.checkpoint, or train it longer: teacher.epochs",
    )


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
        f"its gradient to the student's weights had the norm {pulls[name]:.4g}, all others together {others:.4g}",
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
    if facts.student_top1 < facts.teacher_top1 - _NEAR_TEACHER or _useless_teacher(facts):
        return None
    if 2 * facts.error_of(facts.student_top1) > _WIDE:
        return None
    is_level = facts.student_top1 >= facts.teacher_top1
    return Diagnosis(
        "the student is as good as its teacher" if is_level else "the student has almost reached its teacher",
        f"test top-1 {facts.student_top1:.2%}, its teacher {facts.teacher} {facts.teacher_top1:.2%}",
        "this teacher has nothing left to give: take a better teacher, or a smaller student",
    )
