"""What a build finds in its networks and checkpoints before the first stage runs."""

import json
from pathlib import Path

import pytest
import torch

from mobilekd import pipeline
from mobilekd.config import Pipeline
from mobilekd.errors import ConfigError
from mobilekd.pipeline import Workshop
from mobilekd.plan import PlannedStage, rehearse
from mobilekd.profile import Profile
from mobilekd.stage import Stage
from mobilekd.stages.data import Data
from mobilekd.stages.distill import Distill
from mobilekd.stages.teacher import Teacher
from tests.toys import Silent
from tests.training.nets import wide

NARROW, WIDE = "python:tests.training.nets:narrow", "python:tests.training.nets:wide"
FLAT = "python:tests.test_rehearsal:flat"


def flat(num_classes: int) -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, num_classes))


def stages(student: dict[str, object], teacher: dict[str, object]) -> tuple[Stage, ...]:
    distill = {"network": NARROW, **student}
    return (
        Data(),
        Teacher.model_validate({"network": WIDE, **teacher}),
        Distill.model_validate_json(json.dumps(distill)),
    )


def fault(student: dict[str, object] | None = None, teacher: dict[str, object] | None = None) -> ConfigError:
    planned = [PlannedStage(one, "", {}, None, "", None) for one in stages(student or {}, teacher or {})]
    with pytest.raises(ConfigError) as caught:
        rehearse(planned)
    return caught.value


MAPS = {"method": "attention_transfer"}
PAIR = {"student": "layer1", "teacher": "layer9", "method": "attention_transfer"}


@pytest.mark.parametrize(
    ("student", "code", "told"),
    [
        ({"network": "python:tests.training.nets:none"}, "MKD-250", "has no function 'none'"),
        ({"network": "timm:vit_tiny_patch16_224"}, "MKD-250", "does not take an image of [2, 3, 32, 32]"),
        ({**MAPS, "network": FLAT}, "MKD-252", "gives no feature maps"),
        ({**MAPS, "student_stages": ["layer4"]}, "MKD-252", "has no module 'layer4'"),
        ({**MAPS, "teacher_stages": ["linear"]}, "MKD-252", "module 'linear' gives [2, 10]"),
        ({"layers": [PAIR]}, "MKD-252", "has no module 'layer9'"),
    ],
)
def test_a_network_that_can_not_be_distilled_is_found_without_data_or_teacher(student, code: str, told: str) -> None:
    found = fault(student)
    assert (found.code, found.message.startswith("distill: "), told in found.message) == (code, True, True)


def test_a_checkpoint_that_is_cut_off_is_found(tmp_path: Path) -> None:
    torch.save(wide(10).state_dict(), tmp_path / "whole.pt")
    whole = (tmp_path / "whole.pt").read_bytes()
    (tmp_path / "cut.pt").write_bytes(whole[: len(whole) // 2])
    found = fault(teacher={"checkpoint": str(tmp_path / "cut.pt")})
    assert (found.code, found.message.startswith("teacher: "), found.hint) == ("MKD-251", True, "was it cut off?")


def test_a_checkpoint_of_an_extra_teacher_with_other_classes_is_found(tmp_path: Path) -> None:
    torch.save(wide(3).state_dict(), tmp_path / "three.pt")
    found = fault({"extra_teachers": [{"network": WIDE, "checkpoint": str(tmp_path / "three.pt")}]})
    assert "is [3], not [10]" in found.message


def test_all_faults_are_told_together_and_one_of_two_stages_once() -> None:
    same = {"network": "python:tests.training.nets:none"}
    assert fault(same, same).message.startswith("teacher, distill: ")


def test_a_sound_plan_is_accepted_and_draws_no_random_number() -> None:
    before = torch.random.get_rng_state()
    rehearse([PlannedStage(one, "", {}, None, "", None) for one in stages(MAPS, {})])
    assert torch.equal(torch.random.get_rng_state(), before)


def test_nothing_runs_where_a_fault_is_found(workshop: Workshop, watcher: Silent, profile: Profile) -> None:
    with pytest.raises(ConfigError):
        pipeline.build(Pipeline("toy", "", 0, stages({"network": FLAT, **MAPS}, {})), profile, workshop)
    assert watcher.lines == []


@pytest.mark.parametrize(
    ("source", "path", "classes"), [("digits", "", 10), ("cifar100", "none", 100), ("imagefolder", "photos", 2)]
)
def test_the_classes_of_data_are_counted_without_an_image(source, path, classes, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos/train/cat").mkdir(parents=True)
    (tmp_path / "photos/train/dog").mkdir()
    assert Data(source=source, path=path).class_count() == classes


def test_a_network_of_data_that_are_not_known_is_left_to_its_stage() -> None:
    data, _, distill = stages({"network": "python:tests.training.nets:none"}, {})
    unknown = data.model_copy(update={"source": "npz", "path": "nowhere.npz"})
    with pytest.raises(ConfigError):
        unknown.class_count()

    rehearse([PlannedStage(one, "", {}, None, "", None) for one in (unknown, distill)])
