"""Sums that every kernel rounds alike, for all pairs of integers."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mobilekd.quantization import qat, ties
from mobilekd.quantization.lowering import lower
from mobilekd.quantization.scheme import Scheme
from mobilekd.quantization.ties import Sum
from tests.quantization.sums import F32, PARTED, A, B, cleared, fixed_point, folded_float, rounding, trained_way


@pytest.fixture(scope="module", params=["symmetric", "asymmetric"])
def prepared(request):
    torch.manual_seed(0)
    images = torch.randn(16, 3, 8, 8)
    found = qat.prepare(lower(Residual().eval(), images[:2]), Scheme(request.param))
    qat.calibrate(found, images.split(8))
    qat.settle_scales(found)
    return found


class Residual(nn.Module):
    """Three sums, one with a ReLU behind it and one a difference; the second reads the first, the third both."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.first = nn.Conv2d(8, 8, 1)
        self.second = nn.Conv2d(8, 8, 1)
        self.head = nn.Linear(8, 5)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        stem = self.stem(image)
        summed = torch.relu(stem + self.first(stem))
        other = summed + self.second(summed)
        return self.head((other - summed).mean((2, 3)))


def test_every_sum_of_a_network_is_found(prepared) -> None:
    assert [one.sign for one in ties.sums(prepared)] == [1, 1, -1]


def test_no_sum_of_a_network_is_near_the_middle_of_two_steps(prepared) -> None:
    network = copy.deepcopy(prepared)
    assert ties.clear_sums(network) == ()
    assert min(one.nearest_tie_steps() / one.margin_steps() for one in ties.sums(network)) > 1


def test_scales_move_by_less_than_a_thousandth(prepared) -> None:
    network = copy.deepcopy(prepared)
    ties.clear_sums(network)
    pairs = zip(qat.trained_scales(prepared), qat.trained_scales(network), strict=True)
    assert max(float((after / before - 1).abs().max()) for before, after in pairs) < 1e-3


def test_scales_that_are_clear_stay() -> None:
    scales = cleared(PARTED)
    assert cleared(scales) == scales


def test_halves_of_a_step_are_no_sum_after_the_move() -> None:
    assert cleared((0.05, 0.05, 0.1))[2] != pytest.approx(0.1, rel=1e-7)


def test_integers_need_no_move() -> None:
    assert cleared((0.05, 0.05, 0.05))[2] == F32(0.05)


def test_x86_and_arm_part_where_a_sum_is_near_the_middle() -> None:
    pair = (A == -20) & (B == 22)
    assert (folded_float(PARTED)[pair].item(), fixed_point(PARTED, 22)[pair].item()) == (12, 11)


def test_a_zero_point_moves_the_sums() -> None:
    at_half = Sum(rounding(1.0), rounding(0.5, 1), rounding(1.0))
    assert at_half.nearest_tie_steps() == 0.0


@settings(max_examples=25)
@given(output=st.floats(1e-3, 1.0), first=st.floats(0.1, 1.9), second=st.floats(0.1, 1.9))
def test_all_kernels_agree_on_all_pairs(output, first, second) -> None:
    scales = cleared((first * output, second * output, output))
    expected = trained_way(scales)
    for found in (folded_float(scales), fixed_point(scales, 22), fixed_point(scales, 21)):
        np.testing.assert_array_equal(found, expected)
