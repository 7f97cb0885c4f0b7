"""Ranges from histograms: known values and laws."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mobilekd.quantization.ranges import _CLIPS, Histogram, quantization_of, weight_scales

HOW = ("minmax", "moving_average", "percentile", "mse")
VALUES = arrays(np.float32, 200, elements=st.floats(-100, 100, width=32))


def seen(*batches: torch.Tensor) -> Histogram:
    histogram = Histogram()
    for batch in batches:
        histogram.add(batch)
    return histogram


@settings(max_examples=40)
@given(values=VALUES, how=st.sampled_from(HOW))
def test_a_range_holds_0_and_lies_inside_what_was_seen(values, how) -> None:
    low, high = seen(torch.from_numpy(values)).limits(how, is_symmetric=True)
    assert min(0.0, float(values.min())) - 1e-3 <= low <= 0 <= high <= max(0.0, float(values.max())) + 1e-3


@settings(max_examples=40)
@given(values=VALUES)
def test_counts_survive_a_wider_batch(values) -> None:
    assume(values.any())  # zeros alone have no range to count in
    histogram = seen(torch.from_numpy(values), torch.tensor([1000.0, -3.0]))
    assert histogram.counts.sum() == len(values) + 2
    assert histogram.reach >= 1000


def test_minmax_covers_every_value_and_the_average_follows_slowly() -> None:
    histogram = seen(torch.tensor([-1.0, 1.0]), torch.tensor([-3.0, 5.0]))
    assert histogram.limits("minmax", is_symmetric=True) == (-3.0, 5.0)
    assert histogram.limits("moving_average", is_symmetric=True) == pytest.approx((-1.1, 1.2))


def test_the_percentile_and_least_error_leave_an_outlier_out() -> None:
    torch.manual_seed(0)
    values = torch.randn(1_000_000)
    values[0] = 60.0
    assert seen(values).limits("percentile", is_symmetric=True)[1] < 6
    assert seen(values).limits("mse", is_symmetric=True)[1] < 20


@pytest.mark.parametrize("is_symmetric", [True, False])
def test_least_error_has_no_more_error_than_covering_all(is_symmetric) -> None:
    torch.manual_seed(1)
    values = torch.randn(20_000).abs() ** 3
    errors = [rounding_error(values, seen(values).limits(how, is_symmetric=is_symmetric), is_symmetric) for how in HOW]
    assert errors[3] <= min(errors) * 1.01


def rounding_error(values: torch.Tensor, limits: tuple[float, float], is_symmetric: bool) -> float:  # noqa: FBT001
    scale, zero = quantization_of(*limits, is_symmetric=is_symmetric)
    rounded = torch.fake_quantize_per_tensor_affine(values, scale, zero, -128, 127)
    return float((rounded - values).square().mean())


@given(low=st.floats(-50, 0), high=st.floats(0, 50))
def test_an_asymmetric_range_is_covered_and_0_is_exact(low, high) -> None:
    scale, zero = quantization_of(low, high, is_symmetric=False)
    assert -128 <= zero <= 127
    assert (-128 - zero) * scale <= low + scale / 2 + 1e-9
    assert (127 - zero) * scale >= high - scale / 2 - 1e-9


def test_a_channel_of_zeros_gets_a_scale_that_is_small_beside_the_others() -> None:
    weight = torch.tensor([[1.27, -0.5], [0.0, 0.0]])
    scales = weight_scales(weight, 0, "minmax")
    assert scales[0] == pytest.approx(0.01)
    assert 0 < scales[1] < 1e-6


@settings(max_examples=20)
@given(seed=st.integers(0, 2**31))
def test_the_least_error_of_a_weight_is_no_larger_than_that_of_its_full_range(seed) -> None:
    weight = torch.randn(4, 9, generator=torch.Generator().manual_seed(seed)) ** 3
    errors = [
        (
            torch.fake_quantize_per_channel_affine(weight, scales, torch.zeros(4, dtype=torch.int32), 0, -127, 127)
            - weight
        )
        .square()
        .sum(dim=1)
        for scales in (weight_scales(weight, 0, "mse"), weight_scales(weight, 0, "minmax"))
    ]
    assert (errors[0] <= errors[1] * 1.0001).all()


@settings(max_examples=20)
@given(first=st.integers(0, 80), second=st.integers(0, 80))
def test_two_clips_of_one_range_make_no_ties(first, second) -> None:
    ratio = float(_CLIPS[first] / _CLIPS[second])
    from_tie = abs((np.arange(1, 128) * ratio) % 1 - 0.5)
    assert first == second or from_tie.min() > 1e-5


@pytest.mark.parametrize("is_symmetric", [True, False])
def test_a_tensor_that_is_0_throughout_has_a_scale_that_kernels_can_rescale_to(is_symmetric) -> None:
    limits = seen(torch.zeros(10)).limits("mse", is_symmetric=is_symmetric)
    assert quantization_of(*limits, is_symmetric=is_symmetric) == (1.0, 0)
