import pytest
import torch
from torch import tensor

from mobilekd.methods._features import fixed, full_precision, matched, pooled

RAMP = torch.arange(16.0).reshape(1, 1, 4, 4)


def test_pooling_averages_each_cell() -> None:
    assert pooled(RAMP, 2, 2).tolist() == [[[[2.5, 4.5], [10.5, 12.5]]]]


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 4), (3, 3), (4, 4), (3, 1)])
def test_pooling_to_any_grid_equals_adaptive_pooling(height: int, width: int) -> None:
    expected = torch.nn.functional.adaptive_avg_pool2d(RAMP, (height, width))
    torch.testing.assert_close(pooled(RAMP, height, width), expected)


def test_matched_pools_the_larger_of_each_axis() -> None:
    student, teacher = matched(torch.ones(1, 2, 4, 6), torch.ones(1, 5, 8, 3))
    assert (student.shape, teacher.shape) == ((1, 2, 4, 3), (1, 5, 4, 3))


def test_fixed_is_float32_without_gradient() -> None:
    found = fixed(tensor([1.0], dtype=torch.bfloat16, requires_grad=True))
    assert (found.dtype, found.requires_grad) == (torch.float32, False)


def test_products_stay_in_float32_under_autocast() -> None:
    with torch.autocast("cpu", torch.bfloat16), full_precision(RAMP):
        assert (RAMP @ RAMP).dtype == torch.float32
