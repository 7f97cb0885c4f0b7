import pytest
import torch
from torch import Tensor, nn, tensor

from mobilekd.methods._review import Review
from mobilekd.methods.reviewkd import Reviewkd, hierarchical_context
from tests.methods.examples import SIZES, batch, outputs


class Unfused(nn.Module):
    """Adapters that hand the student's stages on."""

    def forward(self, stages: list[Tensor], sizes: list[tuple[int, int]]) -> list[Tensor]:
        return stages


def test_hierarchical_context_matches_hand_worked_value() -> None:
    checkered = tensor([[1.0, -1.0], [-1.0, 1.0]])[None, None]
    # Every pixel is off by 1 and their average by 0: (1 · 1 + ½ · 0) / 1½. Grids of 4 and 2 are left out.
    assert hierarchical_context(torch.zeros(1, 1, 2, 2), checkered).item() == pytest.approx(2 / 3)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7, 8])
def test_a_constant_difference_counts_the_same_at_every_size(size: int) -> None:
    maps = torch.zeros(2, 3, size, size)
    assert hierarchical_context(maps, maps + 3.0).item() == pytest.approx(9.0)


def test_a_pattern_finer_than_a_grid_counts_less_than_a_coarse_one() -> None:
    fine = torch.ones(8, 8)
    fine[:, ::2] = -1.0
    coarse = torch.ones(8, 8)
    coarse[:, :4] = -1.0
    zero = torch.zeros(1, 1, 8, 8)
    assert hierarchical_context(zero, fine[None, None]) < hierarchical_context(zero, coarse[None, None])


def test_the_loss_is_zero_when_student_equals_teacher() -> None:
    assert Reviewkd().terms(outputs(1), outputs(1), batch(), Unfused())["review"].item() == 0.0


def test_the_fusion_answers_in_the_teachers_shapes() -> None:
    student, teacher = outputs(1, channels=2), outputs(2, channels=3, height=12)
    adapters = Reviewkd().adapters(student, teacher, SIZES)
    fused = adapters(list(student.stages), [stage.shape[-2:] for stage in teacher.stages])
    assert [maps.shape for maps in fused] == [stage.shape for stage in teacher.stages]


@pytest.mark.parametrize(("target", "read"), [(0, [0, 1, 2]), (1, [1, 2]), (2, [2])])
def test_a_stage_is_matched_by_itself_and_the_deeper_ones(target: int, read: list[int]) -> None:
    student = outputs(1)
    fused = Review([2, 4, 8], [3, 6, 12], 8)(student.stages, [(8, 8), (4, 4), (2, 2)])
    (fused[target] ** 3).sum().backward()
    assert [number for number, stage in enumerate(student.stages) if stage.grad is not None] == read


def test_the_width_inside_is_at_most_that_of_the_deepest_stage() -> None:
    adapters = Reviewkd(width=512).adapters(outputs(1), outputs(2), SIZES)
    assert {fusion.entry[0].out_channels for fusion in adapters.fusions} == {8}
