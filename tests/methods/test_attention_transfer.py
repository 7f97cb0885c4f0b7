import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import tensor

from mobilekd.method import Outputs
from mobilekd.methods.attention_transfer import AttentionTransfer
from tests.methods.examples import batch, outputs, staged

METHOD = AttentionTransfer()


def loss(student: Outputs, teacher: Outputs) -> float:
    return METHOD.terms(student, teacher, batch(len(student.logits)), None)["attention"].item()


def test_the_loss_matches_hand_worked_value() -> None:
    student, teacher = staged(tensor([[[[3.0, 4.0]]]])), staged(tensor([[[[4.0, 3.0]]]]))
    # (9, 16) and (16, 9), each over √337: they differ by 7 / √337 at both places.
    assert loss(student, teacher) == pytest.approx(49 / 337, abs=1e-6)


def test_the_loss_is_zero_when_student_equals_teacher() -> None:
    assert loss(outputs(1), outputs(1)) == 0.0


@given(scale=st.floats(0.01, 100.0))
def test_the_loss_ignores_the_scale_of_a_stage(scale) -> None:
    student, teacher = outputs(1), outputs(2)
    scaled = staged(*(scale * stage for stage in student.stages))
    assert loss(scaled, teacher) == pytest.approx(loss(student, teacher), rel=1e-4)


def test_the_loss_ignores_the_order_and_the_sign_of_channels() -> None:
    student, teacher = outputs(1), outputs(2)
    turned = staged(*(-stage.flip(1) for stage in student.stages))
    assert loss(turned, teacher) == pytest.approx(loss(student, teacher), rel=1e-5)


def test_channels_repeated_are_the_same_attention() -> None:
    student = outputs(1)
    wider = staged(*(stage.repeat(1, 3, 1, 1) for stage in student.stages))
    assert loss(student, wider) == pytest.approx(0.0, abs=1e-9)


def test_a_larger_map_is_averaged_before_it_is_compared() -> None:
    student = outputs(1)
    larger = staged(*(torch.kron(stage, torch.ones(1, 1, 2, 2)) for stage in student.stages))
    assert loss(student, larger) == pytest.approx(0.0, abs=1e-9)


def test_stages_are_summed() -> None:
    one, other = outputs(1).stages[0], outputs(2).stages[0]
    assert loss(staged(one, one), staged(other, other)) == pytest.approx(2 * loss(staged(one), staged(other)))


def test_a_stage_that_is_zero_gives_a_finite_gradient() -> None:
    dark = torch.zeros(1, 1, 2, 2, requires_grad=True)
    METHOD.terms(staged(dark), staged(torch.ones(1, 1, 2, 2)), batch(1), None)["attention"].backward()
    assert dark.grad is not None
    assert dark.grad.isfinite().all()
