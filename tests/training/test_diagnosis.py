"""Each rule fires on the curve that it is for, with its numbers, and a healthy run is left in peace."""

from dataclasses import replace
from pathlib import Path

import pytest

from mobilekd.training.diagnosis import DistillFacts, diagnose, read_diagnoses, write_diagnoses
from mobilekd.training.history import pulls_of


def curve(*losses: float, **terms: float) -> list[dict[str, float]]:
    return [{"epoch": i + 1.0, "lr": 1e-3, "loss": loss, "top1": 0.5, **terms} for i, loss in enumerate(losses)]


HEALTHY = DistillFacts(
    curve(4.0, 2.0, 1.2, 1.0, 0.95, 0.92, 0.91, 0.905, hard=0.3, soft=0.605),
    student_top1=0.93,
    teacher_top1=0.96,
    temperature=4.0,
    learning_rate=1e-3,
    teacher_train_top1=0.99,
    teacher_validation_top1=0.95,
)

CASES = {
    "the teacher is over-fitted": ({"teacher_train_top1": 1.0, "teacher_validation_top1": 0.85}, "15.0 points"),
    "the loss is stuck": ({"history": curve(2.31, 2.30, 2.305, 2.30, 2.302)}, "2.31 in the first epoch"),
    "the learning rate is too small for so few epochs": (
        {"history": curve(4.0, 3.5, 3.0, 2.5, 2.0, 1.5, 1.0, 0.5), "learning_rate": 1e-5},
        "falls by 0.5 an epoch in the last 2 epochs",
    ),
    "the feature term 'attention' drowns the others": (
        {"history": curve(40.0, 30.0, 22.0, 21.0, **{"pull/hard": 0.5, "pull/soft": 0.5, "pull/attention": 20.0})},
        "the norm 20, all others together 1",
    ),
    "the temperature is outside 2 to 5": ({"temperature": 12.0}, "is 12"),
    "the teacher is no better than the largest class": (
        {"teacher_top1": 0.34, "largest_class": 1 / 3, "test_images": 300, "student_top1": 0.6},
        "is 34.00%, and of the 300 test images 33.33% are of one class",
    ),
    "the student has almost reached its teacher": ({"teacher_top1": 0.934}, "93.40%"),
}  # fmt: skip


@pytest.mark.parametrize(("cause", "changed", "number"), [(cause, *case) for cause, case in CASES.items()])
def test_one_fault_gives_one_diagnosis_with_its_numbers(cause, changed, number) -> None:
    (found,) = diagnose(replace(HEALTHY, **changed))
    assert (found.cause, number in found.evidence) == (cause, True)


def test_each_cause_has_a_code_of_its_own() -> None:
    found = [one for changed, _ in CASES.values() for one in diagnose(replace(HEALTHY, **changed))]
    codes = ["MKD-801", "MKD-802", "MKD-803", "MKD-804", "MKD-805", "MKD-809", "MKD-806"]
    assert [one.code for one in found] == codes


def test_a_student_as_good_as_its_teacher_has_the_code_of_one_that_almost_is() -> None:
    assert [one.code for one in diagnose(replace(HEALTHY, teacher_top1=0.93))] == ["MKD-806"]


def test_an_over_fitted_teacher_is_mended_by_epochs_and_regularisation() -> None:
    (found,) = diagnose(replace(HEALTHY, teacher_train_top1=1.0, teacher_validation_top1=0.85))
    assert "teacher.epochs" in found.next_step
    assert "weight_decay" in found.next_step


def test_a_healthy_run_is_left_in_peace() -> None:
    assert diagnose(HEALTHY) == []


def test_a_term_that_is_large_and_pulls_little_is_left_in_peace() -> None:
    history = curve(9.7, 9.5, 9.4, 9.3, hard=0.3, contrast=9.0, **{"pull/hard": 0.5, "pull/contrast": 0.4})
    assert diagnose(replace(HEALTHY, history=history)) == []


def test_a_term_without_another_drowns_nobody() -> None:
    history = curve(4.0, 2.0, 1.2, 1.0, **{"pull/hard": 0.0, "pull/hint": 3.0})
    assert diagnose(replace(HEALTHY, history=history)) == []


def test_a_pull_is_judged_where_a_run_is_on_its_way() -> None:
    history = curve(*(5.0 - 0.1 * number for number in range(20)))
    for number, hint in {1: 900.0, 3: 12.0, 7: 96.0, 11: 24.0, 15: 2.0, 20: 1.0}.items():
        history[number - 1] |= {"pull/hard": 1.0, "pull/hint": hint}
    assert pulls_of(history) == {"hard": 1.0, "hint": 24.0}


def test_a_term_that_was_looked_at_too_late_is_not_judged() -> None:
    history = [*curve(4.0, 2.0, 1.2), *curve(1.0, **{"pull/hard": 0.1, "pull/hint": 90.0})]
    assert diagnose(replace(HEALTHY, history=history)) == []


def test_top1_of_a_few_images_is_near_nothing() -> None:
    assert diagnose(replace(HEALTHY, teacher_top1=0.934, test_images=18)) == []


def test_a_student_of_a_useless_teacher_is_not_said_to_have_reached_it() -> None:
    facts = replace(HEALTHY, student_top1=0.34, teacher_top1=0.33, largest_class=1 / 3, test_images=18)
    assert [one.code for one in diagnose(facts)] == ["MKD-809"]


def test_a_loss_without_temperature_is_not_judged_by_one() -> None:
    assert diagnose(replace(HEALTHY, temperature=None)) == []


def test_a_large_soft_term_is_no_feature_term() -> None:
    assert diagnose(replace(HEALTHY, history=curve(4.0, 2.0, 1.5, 1.45, hard=0.01, soft=1.44))) == []


def test_a_steep_end_with_a_large_rate_asks_for_no_larger_one() -> None:
    assert diagnose(replace(HEALTHY, history=curve(4.0, 3.5, 3.0, 2.5, 2.0, 1.5, 1.0, 0.5))) == []


def test_a_student_that_was_not_trained_has_no_curve_to_judge() -> None:
    assert diagnose(replace(HEALTHY, history=[])) == []


def test_diagnoses_read_back_as_they_were_written(tmp_path: Path) -> None:
    found = diagnose(replace(HEALTHY, temperature=1.0, teacher_top1=0.93))
    write_diagnoses(tmp_path / "diagnoses.json", found)
    assert read_diagnoses(tmp_path / "diagnoses.json") == found
