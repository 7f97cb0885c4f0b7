import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import tensor

from mobilekd.method import Outputs
from mobilekd.methods.sp import Sp
from tests.methods.examples import batch, outputs, staged


def loss(student: Outputs, teacher: Outputs, stages: int = 1) -> float:
    return Sp(stages=stages).terms(student, teacher, batch(len(student.logits)), None)["similarity"].item()


def test_the_loss_matches_hand_worked_value() -> None:
    apart = tensor([[1.0, 0.0], [0.0, 1.0]])[..., None, None]
    alike = tensor([[1.0, 1.0], [1.0, 1.0]])[..., None, None]
    # Rows (1, 0) and (0, 1) against (√½, √½) twice, over 2².
    assert loss(staged(apart), staged(alike)) == pytest.approx(2 * ((1 - math.sqrt(0.5)) ** 2 + 0.5) / 4, abs=1e-6)


def test_the_loss_is_zero_when_student_equals_teacher() -> None:
    assert loss(outputs(1), outputs(1), stages=3) == 0.0


@given(seed=st.integers(0, 1000), scale=st.floats(0.01, 100.0))
def test_the_loss_ignores_an_orthogonal_change_of_features_and_their_scale(seed, scale) -> None:
    student, teacher = outputs(1), outputs(2)
    flat = student.stages[-1].detach().flatten(1)
    turn = torch.linalg.qr(torch.randn(32, 32, generator=torch.Generator().manual_seed(seed)).double()).Q
    turned = staged((scale * flat.double() @ turn).float()[..., None, None])
    assert loss(turned, staged(teacher.stages[-1])) == pytest.approx(loss(student, teacher), rel=1e-3, abs=1e-6)


@pytest.mark.parametrize(("stages", "read"), [(1, [2]), (2, [1, 2]), (9, [0, 1, 2])])
def test_the_deepest_stages_are_read(stages: int, read: list[int]) -> None:
    student = outputs(1)
    Sp(stages=stages).terms(student, outputs(2), batch(), None)["similarity"].backward()
    assert [number for number, maps in enumerate(student.stages) if maps.grad is not None] == read


def test_an_image_that_is_zero_gives_a_finite_gradient() -> None:
    dark = torch.zeros(2, 1, 2, 2, requires_grad=True)
    Sp().terms(staged(dark), staged(torch.ones(2, 1, 2, 2)), batch(2), None)["similarity"].backward()
    assert dark.grad is not None
    assert dark.grad.isfinite().all()
