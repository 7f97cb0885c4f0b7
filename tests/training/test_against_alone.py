"""The student against itself without a teacher: what chance explains is no finding."""

import json
from pathlib import Path

import numpy as np
import pytest

from mobilekd.training.against_alone import with_alone
from mobilekd.training.diagnosis import Diagnosis, write_diagnoses

IMAGES = 400


def network(folder: Path, right: int, facts: dict[str, object] | None = None) -> Path:
    """Write what a network leaves that names the class of the first `right` of 400 images, all of class 0."""
    folder.mkdir()
    logits = np.eye(2, dtype=np.float32)[(np.arange(IMAGES) >= right).astype(int)]
    np.save(folder / "test_logits.npy", logits)
    (folder / "metrics.json").write_text(json.dumps({"top1_test": right / IMAGES}))
    (folder / "network.json").write_text(json.dumps(facts or {"method": ["kd"], "feature_methods": []}))
    return folder


def test_a_student_worse_than_alone_is_told_after_what_its_stage_found(tmp_path: Path) -> None:
    student = network(tmp_path / "student", 340)
    write_diagnoses(student / "diagnoses.json", [Diagnosis("a", "b", "c")])

    first, second = with_alone(student, network(tmp_path / "alone", 360))

    assert (first.cause, second.code) == ("a", "MKD-807")
    # 20 images on which they disagree: 2 * sqrt(20) / 400
    assert second.evidence == (
        "test top-1 85.00% with the teacher, 90.00% without: 5.00 points,"
        " more than the 2.24 that are two standard errors for 400 images"
    )


@pytest.mark.parametrize("alone", [300, 340, 343])  # 3 images of 3 are less than two standard errors
def test_a_student_as_good_as_alone_within_chance_is_left_in_peace(alone: int, tmp_path: Path) -> None:
    assert with_alone(network(tmp_path / "student", 340), network(tmp_path / "alone", alone)) == []


def test_a_student_of_which_nobody_knows_how_it_is_alone_is_left_in_peace(tmp_path: Path) -> None:
    assert with_alone(network(tmp_path / "student", 10), None) == []


@pytest.mark.parametrize(
    ("method", "features", "tried"),
    [
        (["kd"], [], "try a lower soft_weight (--alpha), or a teacher"),
        (["dkd"], [], "try a lower soft_weight (--alpha), --method kd, or a teacher"),
        (["sp"], ["sp"], "try a tenth of the weight of sp (distill.method_options), --method kd, or a teacher"),
        (
            ["kd", "sp"],
            ["sp"],
            "try a tenth of the weight of sp (distill.method_options), a lower soft_weight (--alpha), --method kd, or",
        ),
    ],
)
def test_what_to_try_is_what_the_run_has(method: list[str], features: list[str], tried: str, tmp_path: Path) -> None:
    student = network(tmp_path / "student", 100, {"method": method, "feature_methods": features})
    (found,) = with_alone(student, network(tmp_path / "alone", 300))
    assert found.next_step.startswith(tried)
