import pytest
from torch import tensor

from mobilekd.method import Outputs
from mobilekd.methods.kd import Kd, softened_kl
from tests.methods.cases import batch

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


def test_the_term_is_the_softened_kl_at_its_temperature() -> None:
    terms = Kd(temperature=1.5).terms(Outputs(STUDENT), Outputs(TEACHER), batch(), None)
    assert {name: value.item() for name, value in terms.items()} == {"soft": softened_kl(STUDENT, TEACHER, 1.5).item()}


@pytest.mark.parametrize(("progress", "weight"), [(0.1, 0.0), (0.25, 1.0), (0.3, 2.0), (0.8, 2.0), (0.9, 0.0)])
def test_weight_starts_rises_and_ends(progress: float, weight: float) -> None:
    assert Kd(weight=2.0, start=0.2, end=0.8, ramp=0.1).weight_at(progress) == pytest.approx(weight)


@pytest.mark.parametrize("decay", ["linear", "cosine"])
def test_decay_is_half_way_down_in_the_middle(decay: str) -> None:
    assert Kd.model_validate({"decay": decay}).weight_at(0.5) == pytest.approx(0.5)
