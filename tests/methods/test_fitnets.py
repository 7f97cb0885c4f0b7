import pytest
import torch
from torch import nn

from mobilekd.errors import ConfigError
from mobilekd.methods.fitnets import Fitnets
from tests.methods.examples import SIZES, batch, outputs, staged


def test_the_hint_matches_hand_worked_value() -> None:
    student, teacher = staged(torch.ones(1, 1, 2, 2)), staged(torch.full((1, 1, 2, 2), 3.0))
    assert Fitnets().terms(student, teacher, batch(1), nn.Identity())["hint"].item() == 4.0


def test_the_hint_is_zero_when_student_equals_teacher() -> None:
    assert Fitnets().terms(outputs(1), outputs(1), batch(), nn.Identity())["hint"].item() == 0.0


def test_a_larger_map_is_averaged_before_it_is_compared() -> None:
    fine = torch.tensor([1.0, 3.0]).repeat(2, 1)[None, None]
    hint = Fitnets().terms(staged(fine), staged(torch.full((1, 1, 1, 1), 2.0)), batch(1), nn.Identity())["hint"]
    assert hint.item() == 0.0


@pytest.mark.parametrize(("stage", "read"), [("middle", 1), (0, 0), (2, 2), (-1, 2)])
def test_only_the_chosen_stage_is_read(stage: int | str, read: int) -> None:
    student, teacher = outputs(1), outputs(2)
    Fitnets(stage=stage).terms(student, teacher, batch(), nn.Identity())["hint"].backward()
    assert [number for number, maps in enumerate(student.stages) if maps.grad is not None] == [read]


def test_the_adapter_brings_the_channels_to_the_teachers() -> None:
    student, teacher = outputs(1, channels=2), outputs(2, channels=3)
    assert Fitnets(stage=0).adapters(student, teacher, SIZES)(student.stages[0]).shape == teacher.stages[0].shape


@pytest.mark.parametrize("stage", [3, -4])
def test_a_stage_that_is_not_there_is_refused_with_the_numbers_there_are(stage: int) -> None:
    with pytest.raises(ConfigError, match=f"fitnets.stage is {stage}; the networks have 3 stages") as caught:
        Fitnets(stage=stage).adapters(outputs(1), outputs(2), SIZES)
    assert "0 to 2" in caught.value.hint
