import pytest
import torch
from torch import tensor

from mobilekd.method import Outputs
from mobilekd.methods.kd import Kd, softened_kl
from tests.methods.examples import batch

TEACHER = tensor([[3.0, 1.0], [0.5, 0.0]])
STUDENT = tensor([[1.0, 2.0], [0.0, 1.0]])


def test_softened_kl_matches_hand_worked_value() -> None:
    loss = softened_kl(tensor([[1.0, 2.0]]), tensor([[3.0, 1.0]]), temperature=4.0)
    assert loss.item() == pytest.approx(1.09931, abs=1e-5)


def test_softened_kl_is_zero_when_student_equals_teacher() -> None:
    assert softened_kl(TEACHER, TEACHER, temperature=3.0).item() == pytest.approx(0.0, abs=1e-6)


def test_softened_kl_ignores_a_constant_added_to_all_logits() -> None:
    moved = softened_kl(STUDENT + 7.0, TEACHER - 3.0, temperature=2.0)
    assert moved.item() == pytest.approx(softened_kl(STUDENT, TEACHER, temperature=2.0).item(), abs=1e-5)


def test_the_only_term_is_the_softened_kl() -> None:
    terms = Kd(temperature=2.0).terms(Outputs(STUDENT), Outputs(TEACHER), batch(labels=[0, 1]), None)
    assert {name: term.item() for name, term in terms.items()} == {"soft": softened_kl(STUDENT, TEACHER, 2.0).item()}


def test_the_gradient_does_not_fall_with_the_square_of_the_temperature() -> None:
    cool, hot = STUDENT.clone().requires_grad_(), STUDENT.clone().requires_grad_()
    softened_kl(cool, TEACHER, temperature=10.0).backward()
    softened_kl(hot, TEACHER, temperature=100.0).backward()
    torch.testing.assert_close(cool.grad, hot.grad, rtol=0.05, atol=0.0)
