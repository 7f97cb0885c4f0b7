"""Laws that every method keeps."""

import pytest
import torch

from mobilekd.method import Method
from mobilekd.plugins import METHODS
from tests.methods.cases import adapters_of, learning, loss, outputs

EVERY = pytest.mark.parametrize("name", METHODS.names())
# With adapters a student that equals its teacher still differs by what they do to it.
PLAIN = pytest.mark.parametrize("name", ["attention_transfer", "dist", "dkd", "kd", "rkd", "sp"])


def method(name: str) -> Method:
    made: Method = METHODS.load(name)()
    return made


@PLAIN
def test_no_loss_when_student_equals_teacher(name: str) -> None:
    assert loss(method(name), outputs(), outputs()).item() == pytest.approx(0.0, abs=2e-3)


@EVERY
def test_a_loss_when_student_differs_from_teacher(name: str) -> None:
    student, teacher = outputs(seed=0), outputs(seed=50)
    assert loss(method(name), student, teacher, adapters_of(method(name), student, teacher)).item() > 1e-4


@EVERY
def test_the_gradient_reaches_the_student_and_not_the_teacher(name: str) -> None:
    student, teacher = learning(outputs(seed=0)), learning(outputs(seed=50))
    loss(method(name), student, teacher, adapters_of(method(name), student, teacher)).backward()  # type: ignore[no-untyped-call]
    ours = [one.grad for one in (student.logits, *student.stages, student.embedded())]
    theirs = [one.grad for one in (teacher.logits, *teacher.stages, teacher.embedded())]
    assert any(one is not None and torch.isfinite(one).all() and one.abs().sum() > 0 for one in ours)
    assert theirs == [None] * len(theirs)


@EVERY
def test_widths_and_sizes_of_student_and_teacher_may_differ(name: str) -> None:
    student = outputs((4, 6, 8), (8, 4, 2))
    teacher = outputs((8, 12, 32), (16, 8, 4), seed=50)
    assert torch.isfinite(loss(method(name), student, teacher, adapters_of(method(name), student, teacher)))


@pytest.mark.parametrize("name", ["crd", "fitnets", "reviewkd"])
def test_every_weight_of_an_adapter_learns(name: str) -> None:
    student, teacher = outputs(seed=0), outputs(seed=50)
    adapters = adapters_of(method(name), student, teacher)
    assert adapters is not None
    total = loss(method(name), learning(student), teacher, adapters)
    total.backward()  # type: ignore[no-untyped-call]
    assert [one for one, weight in adapters.named_parameters() if weight.grad is None] == []


@EVERY
def test_the_order_of_images_does_not_matter(name: str) -> None:
    from tests.methods.order import shuffled

    student, teacher = outputs(seed=0), outputs(seed=50)
    expected = loss(method(name), student, teacher, adapters_of(method(name), student, teacher))
    assert shuffled(method(name), student, teacher).item() == pytest.approx(expected.item(), rel=0.02)


@EVERY
def test_reads_tells_whether_features_are_used(name: str) -> None:
    assert method(name).uses_features() == (name not in {"kd", "dkd", "dist"})
