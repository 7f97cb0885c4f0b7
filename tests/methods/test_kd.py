import pytest
import torch
from torch import tensor

from mobilekd.method import Outputs
from mobilekd.methods.kd import Kd, softened_kl

TEACHER = tensor([[3.0, 1.0], [0.5, 0.0]])
STUDENT = tensor([[1.0, 2.0], [0.0, 1.0]])
LABELS = tensor([0, 1])


def test_softened_kl_matches_hand_worked_value() -> None:
    loss = softened_kl(tensor([[1.0, 2.0]]), tensor([[3.0, 1.0]]), temperature=4.0)
    assert loss.item() == pytest.approx(1.09931, abs=1e-5)


def test_softened_kl_is_zero_when_student_equals_teacher() -> None:
    assert softened_kl(TEACHER, TEACHER, temperature=3.0).item() == pytest.approx(0.0, abs=1e-6)


def test_softened_kl_ignores_a_constant_added_to_all_logits() -> None:
    moved = softened_kl(STUDENT + 7.0, TEACHER - 3.0, temperature=2.0)
    assert moved.item() == pytest.approx(softened_kl(STUDENT, TEACHER, temperature=2.0).item(), abs=1e-5)


def test_terms_weigh_the_teacher_by_soft_weight() -> None:
    terms = Kd(temperature=1.0, soft_weight=0.25).terms(Outputs(STUDENT), Outputs(TEACHER), LABELS, None)
    hard = torch.nn.functional.cross_entropy(STUDENT, LABELS)
    assert terms["hard"].item() == pytest.approx(0.75 * hard.item())
    assert terms["soft"].item() == pytest.approx(0.25 * softened_kl(STUDENT, TEACHER, 1.0).item())


def test_the_gradient_reaches_the_student_only() -> None:
    student, teacher = STUDENT.clone().requires_grad_(), TEACHER.clone()
    sum(Kd().terms(Outputs(student), Outputs(teacher), LABELS, None).values()).backward()
    assert student.grad is not None
    assert teacher.grad is None
