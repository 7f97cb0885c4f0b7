"""What holds for every method."""

import pytest
import torch
from torch import nn

from mobilekd.method import Method, Outputs
from mobilekd.plugins import METHODS
from tests.methods.examples import SIZES, batch, outputs, tensors

every_method = pytest.mark.parametrize("name", METHODS.names())
with_adapters = pytest.mark.parametrize("name", ["crd", "fitnets", "reviewkd"])


def total(method: Method, student: Outputs, teacher: Outputs, adapters: nn.Module | None) -> torch.Tensor:
    return torch.stack(list(method.terms(student, teacher, batch(), adapters).values())).sum()


def made(name: str) -> tuple[Method, Outputs, Outputs, nn.Module | None]:
    torch.manual_seed(0)
    method: Method = METHODS.load(name)()
    student, teacher = outputs(1), outputs(2, channels=3, height=16, width=7)
    return method, student, teacher, method.adapters(student, teacher, SIZES)


@every_method
def test_the_gradient_reaches_the_student_and_never_the_teacher(name: str) -> None:
    method, student, teacher, adapters = made(name)
    total(method, student, teacher, adapters).backward()
    assert any(tensor.grad is not None and tensor.grad.abs().sum() > 0 for tensor in tensors(student))
    assert all(tensor.grad is None for tensor in tensors(teacher))


@every_method
def test_a_method_that_reads_logits_alone_leaves_the_rest_alone(name: str) -> None:
    method, student, teacher, adapters = made(name)
    total(method, student, teacher, adapters).backward()
    assert (student.logits.grad is None) == method.uses_features()


@every_method
def test_terms_are_finite_scalars_in_float32_for_bfloat16_outputs(name: str) -> None:
    method, student, teacher, adapters = made(name)
    half = [Outputs(o.logits.bfloat16(), tuple(s.bfloat16() for s in o.stages), o.embedded().bfloat16())
            for o in (student, teacher)]  # fmt: skip
    with torch.autocast("cpu", torch.bfloat16):
        terms = method.terms(half[0], half[1], batch(), adapters)
    assert all(term.shape == () and term.dtype == torch.float32 and term.isfinite() for term in terms.values())


@every_method
def test_terms_carry_no_weight_of_the_method(name: str) -> None:
    method, student, teacher, adapters = made(name)
    (adapters or nn.Identity()).eval()
    plain = total(method, student, teacher, adapters)
    heavier = total(method.model_copy(update={"weight": 7.0}), student, teacher, adapters)
    assert heavier.item() == plain.item()


@every_method
def test_two_calls_on_a_batch_give_equal_terms(name: str) -> None:
    method, student, teacher, adapters = made(name)
    (adapters or nn.Identity()).eval()
    first, second = (total(method, student, teacher, adapters).item() for _ in range(2))
    assert first == second


@with_adapters
def test_adapters_are_trained_with_the_student(name: str) -> None:
    method, student, teacher, adapters = made(name)
    assert adapters is not None
    total(method, student, teacher, adapters).backward()
    assert all(parameter.grad is not None for parameter in adapters.parameters())


@with_adapters
def test_adapters_return_from_a_check_point_as_they_were(name: str) -> None:
    method, student, teacher, adapters = made(name)
    assert adapters is not None
    total(method, student, teacher, adapters)
    other = method.adapters(student, teacher, SIZES)
    assert other is not None
    other.load_state_dict(adapters.state_dict())
    resumed, straight = (total(method, student, teacher, each).item() for each in (other, adapters))
    assert resumed == straight
