import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import tensor

from mobilekd.method import Outputs
from mobilekd.methods.dist import Dist, uncorrelated
from tests.methods.examples import batch

TEACHER = tensor([[0.5, 0.25, 0.25], [0.25, 0.25, 0.5]]).log()
STUDENT = TEACHER.flip(1)
ROWS = tensor([[0.1, 0.7, 0.2], [0.3, 0.3, 0.4]])


def test_terms_match_hand_worked_values() -> None:
    terms = Dist().terms(Outputs(STUDENT), Outputs(TEACHER), batch(2), None)
    # Each row has r = -½. The columns have r = -1, 0 (no variance) and -1.
    assert terms["inter"].item() == pytest.approx(1.5, abs=1e-5)
    assert terms["intra"].item() == pytest.approx(5 / 3, abs=1e-5)


def test_terms_carry_beta_gamma_and_the_square_of_the_temperature() -> None:
    method = Dist(temperature=2.0, beta=2.0, gamma=3.0)
    terms = method.terms(Outputs(2 * STUDENT), Outputs(2 * TEACHER), batch(2), None)
    assert terms["inter"].item() == pytest.approx(4 * 2 * 1.5, abs=1e-4)
    assert terms["intra"].item() == pytest.approx(4 * 3 * 5 / 3, abs=1e-4)


def test_terms_are_zero_when_student_equals_teacher() -> None:
    logits = tensor([[1.0, 0.0, 3.0], [2.0, -1.0, 0.5]])
    terms = Dist().terms(Outputs(logits + 4.0), Outputs(logits), batch(2), None)
    assert [term.item() for term in terms.values()] == pytest.approx([0.0, 0.0], abs=1e-5)


@given(scale=st.floats(0.01, 100.0), shift=st.floats(-1.0, 1.0))
def test_a_correlation_ignores_scale_and_shift(scale, shift) -> None:
    other = tensor([[0.2, 0.5, 0.3], [0.6, 0.1, 0.3]])
    assert uncorrelated(scale * ROWS + shift, other).item() == pytest.approx(uncorrelated(ROWS, other).item(), abs=1e-2)


def test_a_row_turned_over_is_two_away() -> None:
    assert uncorrelated(ROWS, -ROWS).item() == pytest.approx(2.0, abs=1e-5)


def test_a_row_without_variance_gives_one_and_no_gradient() -> None:
    flat = torch.full((1, 3), 0.25, requires_grad=True)
    loss = uncorrelated(flat, ROWS[:1])
    loss.backward()
    assert loss.item() == 1.0
    assert flat.grad is not None
    assert flat.grad.isfinite().all()
