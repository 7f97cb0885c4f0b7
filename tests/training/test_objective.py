"""The loss of a distillation: laws, and values worked by hand."""

import math

import pytest
import torch
from torch import Tensor, nn

from mobilekd.errors import ConfigError
from mobilekd.method import Batch, Sizes
from mobilekd.methods.kd import Kd
from mobilekd.training.objective import Objective, TeacherNetwork, combined
from mobilekd.training.pairing import paired
from mobilekd.training.strategy import Part, Strategy
from tests.training.nets import Answer, Count, Maps, Says, narrow, wide

LABELS = torch.tensor([0, 2, 1, 0])
TARGETS = nn.functional.one_hot(LABELS, 3).float()
IMAGES = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def batch(progress: float = 0.5, targets: Tensor = TARGETS) -> Batch:
    return Batch(IMAGES, LABELS, targets, torch.arange(4), 0, progress)


def networks() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    return narrow(), wide()


def objective(strategy: Strategy, student: nn.Module, *teachers: TeacherNetwork) -> Objective:
    return Objective(student, teachers, strategy, example=IMAGES[:2], sizes=Sizes(100, 3), seed=0)


def both(*parts: Part, hard: float = 0.1, **more: object) -> Objective:
    student, teacher = networks()
    return objective(Strategy(hard, parts, **more), student, TeacherNetwork(teacher))


class Remembered:
    """Soft labels that know every answer."""

    def __init__(self) -> None:
        self.asked: list[tuple[list[int], int]] = []

    def answers(self, rows, view, ask):
        self.asked.append((rows.tolist(), view))
        return torch.tensor([[7.0, 0.0, 0.0]]).expand(len(rows), -1)


def test_the_hard_term_of_equal_logits_is_the_weighted_entropy_of_the_classes() -> None:
    loss = objective(Strategy(0.25, ()), _Equal(), TeacherNetwork(Says(0.0, 0.0, 0.0)))
    assert loss(batch())["hard"].item() == pytest.approx(0.25 * math.log(3))


def test_the_hard_term_reads_the_mixed_targets_not_the_labels() -> None:
    student = Says(math.log(2), 0.0, 0.0)
    mixed = torch.tensor([[0.5, 0.5, 0.0]]).expand(4, -1)
    loss = objective(Strategy(1.0, ()), student, TeacherNetwork(Says(0.0, 0.0, 0.0)))
    assert loss(batch(targets=mixed))["hard"].item() == pytest.approx(math.log(4) - 0.5 * math.log(2))


def test_one_method_keeps_the_names_of_its_terms() -> None:
    assert set(both(Part("kd", Kd()))(batch())) == {"hard", "soft"}


def test_several_methods_prefix_theirs() -> None:
    terms = both(Part("kd", Kd()), Part("maps", Maps()))(batch())
    assert set(terms) == {"hard", "kd.soft", "maps.maps"}


def test_a_weight_multiplies_the_terms_of_its_method() -> None:
    once, thrice = (both(Part("kd", Kd(weight=weight)))(batch())["soft"] for weight in (1.0, 3.0))
    assert thrice.item() == pytest.approx(3 * once.item())


def test_a_method_that_does_not_count_runs_no_teacher() -> None:
    teacher = Says(1.0, 0.0, 0.0)
    terms = objective(Strategy(1.0, (Part("kd", Kd(start=0.6)),)), narrow(), TeacherNetwork(teacher))(batch())
    assert (set(terms), teacher.calls) == ({"hard"}, 0)


def test_nothing_that_counts_is_a_loss_of_zero_with_a_gradient_of_zero() -> None:
    student, teacher = networks()
    terms = objective(Strategy(0.0, (Part("kd", Kd(start=0.6)),)), student, TeacherNetwork(teacher))(batch())
    terms["hard"].backward()
    assert (terms["hard"].item(), student.linear.bias.grad.abs().max().item()) == (0.0, 0.0)


def test_soft_first_drops_labels_and_features() -> None:
    loss = both(Part("kd", Kd()), Part("maps", Maps()), soft_first=0.6)
    assert set(loss(batch(0.5))) == {"kd.soft"}


def test_the_teacher_is_in_evaluation_mode_and_gets_no_gradient() -> None:
    student, teacher = networks()
    loss = objective(Strategy(0.1, (Part("maps", Maps()),)), student, TeacherNetwork(teacher.train()))
    before = teacher.layer1[1].running_mean.clone()
    sum(loss(batch()).values()).backward()
    assert all(one.grad is None for one in teacher.parameters())
    torch.testing.assert_close(teacher.layer1[1].running_mean, before, rtol=0, atol=0)


def test_adapters_get_gradients_and_stay_out_of_the_students_weights() -> None:
    student, teacher = networks()
    names = set(student.state_dict())
    loss = objective(Strategy(0.1, (Part("maps", Maps()),)), student, TeacherNetwork(teacher))
    sum(loss(batch()).values()).backward()
    assert all(one.grad is not None for one in loss.adapters.parameters())
    assert set(student.state_dict()) == names


def test_adapters_depend_on_the_seed_alone() -> None:
    first = both(Part("maps", Maps())).adapters.state_dict()
    torch.rand(3)
    second = both(Part("maps", Maps())).adapters.state_dict()
    torch.testing.assert_close(dict(second), dict(first), rtol=0, atol=0)


def test_making_an_objective_leaves_the_student_and_the_generator_as_they_were() -> None:
    student, teacher = networks()
    before, state = student.layer1[1].running_mean.clone(), torch.get_rng_state()
    objective(Strategy(0.1, (Part("maps", Maps()),)), student.train(), TeacherNetwork(teacher))
    assert student.training
    torch.testing.assert_close(student.layer1[1].running_mean, before, rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_method_without_adapters_has_none() -> None:
    assert both(Part("kd", Kd())).adapters is None


def test_a_pair_of_layers_sees_those_two_alone() -> None:
    terms = both(Part("count", Count(), "layer1", "layer3"), hard=0.0)(batch())
    assert [value.item() for value in terms.values()] == [1.0, 2.0, 16.0]


def test_each_pair_of_layers_has_terms_and_adapters_of_its_own() -> None:
    loss = both(Part("maps", Maps(), "layer1.0", "layer1"), Part("maps", Maps(), "layer2", "layer2"), hard=0.0)
    assert set(loss(batch())) == {"maps@layer1.0.maps", "maps@layer2.maps"}
    assert [tuple(one.weight.shape[:2]) for one in loss.adapters.values()] == [(4, 2), (8, 4)]


def test_a_pair_of_layers_does_not_change_what_a_method_for_all_stages_sees() -> None:
    terms = both(Part("count", Count()), Part("maps", Maps(), "layer1", "layer1"), hard=0.0)(batch())
    assert terms["count.stages"].item() == 3.0


def test_named_stages_stand_in_place_of_those_found() -> None:
    terms = both(Part("count", Count()), hard=0.0, student_stages=("layer2",))(batch())
    assert [value.item() for value in terms.values()] == [1.0, 4.0, 16.0]


def test_named_stages_of_different_number_are_an_error() -> None:
    with pytest.raises(ConfigError, match="1 modules and teacher_stages 2"):
        both(Part("count", Count()), student_stages=("layer2",), teacher_stages=("layer1", "layer2"))


def test_a_layer_that_the_teacher_lacks_is_an_error() -> None:
    with pytest.raises(ConfigError, match="no module 'layer4'"):
        both(Part("count", Count(), "layer1", "layer4"))


def test_the_deepest_stages_are_paired() -> None:
    assert paired(["a", "b", "c"], ["x", "y"]) == [("b", "x"), ("c", "y")]


def test_remembered_logits_are_asked_for_by_row_and_view() -> None:
    remembered, teacher = Remembered(), Says(0.0, 0.0, 0.0)
    one = TeacherNetwork(teacher, soft_labels=remembered)
    terms = objective(Strategy(0.0, (Part("answer", Answer()),)), narrow(), one)(batch())
    assert (terms["answer"].item(), remembered.asked, teacher.calls) == (7.0, [([0, 1, 2, 3], 0)], 0)


def test_a_method_on_features_runs_the_teacher_past_its_remembered_logits() -> None:
    student, teacher = networks()
    remembered = Remembered()
    strategy = Strategy(0.0, (Part("maps", Maps()), Part("answer", Answer())))
    objective(strategy, student, TeacherNetwork(teacher, soft_labels=remembered))(batch())
    assert remembered.asked == []


@pytest.mark.parametrize(("combine", "first"), [("mean", 2.0), ("weighted", 2.5)])
def test_several_teachers_answer_with_the_average_of_their_logits(combine, first) -> None:
    teachers = TeacherNetwork(Says(1.0, 0.0, 0.0)), TeacherNetwork(Says(3.0, 0.0, 0.0), weight=3.0)
    loss = objective(Strategy(0.0, (Part("answer", Answer()),), combine=combine), narrow(), *teachers)
    assert loss(batch())["answer"].item() == pytest.approx(first)


def test_confidence_weighs_each_teacher_by_its_probability_of_the_label() -> None:
    logits = [torch.log(torch.tensor([[0.6, 0.4]])), torch.log(torch.tensor([[0.2, 0.8]]))]
    whole = combined(logits, torch.tensor([[1.0, 0.0]]), "confidence", [1.0, 1.0])
    torch.testing.assert_close(whole, 0.75 * logits[0] + 0.25 * logits[1])


def test_confidence_is_a_matter_of_each_image() -> None:
    right, wrong = torch.tensor([[9.0, 0.0], [9.0, 0.0]]), torch.tensor([[0.0, 9.0], [0.0, 9.0]])
    whole = combined([right, wrong], torch.eye(2), "confidence", [1.0, 1.0])
    assert whole.argmax(dim=1).tolist() == [0, 1]


def test_the_first_teacher_alone_gives_the_stages() -> None:
    student, teacher = networks()
    strategy = Strategy(0.0, (Part("count", Count()),))
    terms = objective(strategy, student, TeacherNetwork(teacher), TeacherNetwork(narrow()))(batch())
    assert terms["teacher_channels"].item() == 4.0


def test_terms_are_fp32_under_autocast() -> None:
    loss = both(Part("kd", Kd()), Part("maps", Maps()))
    with torch.autocast("cpu", torch.bfloat16):
        assert {value.dtype for value in loss(batch()).values()} == {torch.float32}


def test_a_closed_objective_leaves_no_hook_on_student_and_teacher() -> None:
    student, teacher = networks()
    objective(Strategy(0.1, (Part("maps", Maps()),)), student, TeacherNetwork(teacher)).close()
    assert not any(module._forward_hooks for one in (student, teacher) for module in one.modules())


class _Equal(nn.Module):
    """Logits of 0."""

    def forward(self, images: Tensor) -> Tensor:
        return images.new_zeros(len(images), 3)
