import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import tensor

from mobilekd.method import Outputs
from mobilekd.methods.dkd import Dkd, decoupled_kl
from mobilekd.methods.kd import softened_kl
from tests.methods.examples import batch

TEACHER = tensor([[0.5, 0.25, 0.25]]).log()
STUDENT = tensor([[0.25, 0.25, 0.5]]).log()
logits = st.lists(st.floats(-20, 20, width=32), min_size=5, max_size=5)


def test_terms_match_hand_worked_values() -> None:
    terms = Dkd(temperature=1.0, beta=8.0).terms(Outputs(STUDENT), Outputs(TEACHER), batch(labels=[0]), None)
    # ½ ln(½ / ¼) + ½ ln(½ / ¾), and of the others (½, ½) against (⅓, ⅔), times 8.
    assert terms["target"].item() == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(2 / 3), abs=1e-6)
    assert terms["non_target"].item() == pytest.approx(8 * (0.5 * math.log(1.5) + 0.5 * math.log(0.75)), abs=1e-6)


@given(student=logits, teacher=logits, label=st.integers(0, 4), temperature=st.floats(0.5, 8.0))
def test_the_parts_add_up_to_kd_with_beta_one_minus_the_teachers_target(student, teacher, label, temperature) -> None:
    ours, theirs = tensor([student], dtype=torch.float64), tensor([teacher], dtype=torch.float64)
    target, others = decoupled_kl(ours, theirs, tensor([label]), temperature)
    beta = 1 - (theirs / temperature).softmax(1)[0, label].item()
    whole = softened_kl(ours, theirs, temperature).item()
    assert target.item() + beta * others.item() == pytest.approx(whole, rel=1e-6, abs=1e-9)


@given(values=logits, label=st.integers(0, 4))
def test_both_parts_are_zero_when_student_equals_teacher(values, label) -> None:
    target, others = decoupled_kl(tensor([values]), tensor([values]) + 3.0, tensor([label]), 4.0)
    assert (target.item(), others.item()) == pytest.approx((0.0, 0.0), abs=1e-4)


def test_other_classes_do_not_see_the_logit_of_the_label() -> None:
    raised = STUDENT + tensor([[5.0, 0.0, 0.0]])
    before, after = (decoupled_kl(logits, TEACHER, tensor([0]), 1.0)[1] for logits in (STUDENT, raised))
    assert after.item() == pytest.approx(before.item(), abs=1e-6)


def test_the_target_part_does_not_see_how_the_other_classes_share() -> None:
    swapped = tensor([[0.25, 0.6, 0.15]]).log()
    before, after = (decoupled_kl(logits, TEACHER, tensor([0]), 1.0)[0] for logits in (STUDENT, swapped))
    assert after.item() == pytest.approx(before.item(), abs=1e-6)


def test_two_classes_have_no_other_part() -> None:
    assert decoupled_kl(tensor([[1.0, 2.0]]), tensor([[3.0, 1.0]]), tensor([1]), 4.0)[1].item() == 0.0


def test_a_teacher_that_is_certain_gives_finite_terms() -> None:
    target, others = decoupled_kl(tensor([[200.0, 0.0, -200.0]]), tensor([[0.0, 300.0, 0.0]]), tensor([1]), 1.0)
    assert target.isfinite()
    assert others.isfinite()


def test_the_default_rises_to_its_full_weight_in_a_twelfth_of_the_run() -> None:
    assert [Dkd().weight_at(progress) for progress in (0.0, 0.0415, 0.083, 1.0)] == pytest.approx([0.0, 0.5, 1.0, 1.0])
