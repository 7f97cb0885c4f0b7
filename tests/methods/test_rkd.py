import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, tensor

from mobilekd.methods.rkd import Rkd
from tests.methods.examples import batch, embedded

STUDENT = torch.randn(5, 4, generator=torch.Generator().manual_seed(1))
TEACHER = torch.randn(5, 4, generator=torch.Generator().manual_seed(2))


def losses(student: Tensor, teacher: Tensor) -> list[float]:
    terms = Rkd().terms(embedded(student), embedded(teacher), batch(len(student)), None)
    return [terms["distance"].item(), terms["angle"].item()]


def test_the_distance_matches_hand_worked_value() -> None:
    # Distances 1, 2, 3 over their mean 2, against 1, 1, 2 over 4/3: two pairs differ by ¼, so 4 of the 9 entries.
    found = losses(tensor([[0.0], [1.0], [3.0]]), tensor([[0.0], [1.0], [2.0]]))[0]
    assert found == pytest.approx(25 * 4 * 0.5 * 0.25**2 / 9, abs=1e-6)


def test_the_angle_matches_hand_worked_value() -> None:
    equilateral = tensor([[0.0, 0.0], [1.0, 0.0], [0.5, math.sqrt(0.75)]])
    right = tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    # Cosines ½ against 0 at the right angle and √½ at the two others; each angle stands twice among the 27.
    wanted = 2 * 0.5 * 0.5**2 + 4 * 0.5 * (math.sqrt(0.5) - 0.5) ** 2
    assert losses(equilateral, right)[1] == pytest.approx(50 * wanted / 27, abs=1e-5)


def test_the_losses_are_zero_when_student_equals_teacher() -> None:
    assert losses(STUDENT, STUDENT) == [0.0, 0.0]


@given(scale=st.floats(0.01, 100.0), shift=st.floats(-10.0, 10.0), seed=st.integers(0, 1000))
def test_the_losses_ignore_scale_place_and_rotation(scale, shift, seed) -> None:
    turn = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(seed)).double()).Q
    moved = (scale * STUDENT.double() @ turn + shift * scale).float()
    assert losses(moved, TEACHER) == pytest.approx(losses(STUDENT, TEACHER), rel=1e-3, abs=1e-4)


def test_images_that_coincide_give_a_finite_gradient() -> None:
    same = torch.ones(3, 4, requires_grad=True)
    terms = Rkd().terms(embedded(same), embedded(TEACHER[:3]), batch(3), None)
    (terms["distance"] + terms["angle"]).backward()
    assert same.grad is not None
    assert same.grad.isfinite().all()


def test_one_image_has_no_relations() -> None:
    assert losses(STUDENT[:1], TEACHER[:1]) == [0.0, 0.0]
