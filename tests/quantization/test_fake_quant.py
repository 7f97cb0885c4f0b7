"""LSQ's gradient, worked by hand and against its paper's formula."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mobilekd.errors import StageError
from mobilekd.quantization.fake_quant import FakeQuant, PerChannelFakeQuant, TensorFakeQuant


def activation(scale: float, zero_point: int = 0) -> TensorFakeQuant:
    quant = TensorFakeQuant(
        dtype=torch.int8, quant_min=-128, quant_max=127, qscheme=torch.per_tensor_affine, calibration="minmax"
    )
    quant.scale, quant.zero_point = torch.tensor([scale]), torch.tensor([zero_point], dtype=torch.int32)
    return quant


def weight() -> PerChannelFakeQuant:
    return PerChannelFakeQuant(
        dtype=torch.int8,
        quant_min=-127,
        quant_max=127,
        qscheme=torch.per_channel_symmetric,
        ch_axis=0,
        calibration="minmax",
    )


def scale_gradient(quant: FakeQuant, values: torch.Tensor) -> torch.Tensor:
    """Return dL/dscale of L = sum of the rounded values, LSQ's damping taken out."""
    quant.learn()
    quant(values).sum().backward()
    damping = (values[0].numel() * quant.quant_max) ** -0.5
    return quant.log_scale.grad / damping / quant.scale


def test_the_gradient_of_a_scale_is_the_papers() -> None:
    # Esser et al. 2020, equation 3, scale 0.5: 0.6 / 0.5 = 1.2 rounds to 1 (-0.2); 100 clamps to 127; -100 to -128.
    values = torch.tensor([[0.6, 100.0, -100.0]], requires_grad=True)
    assert scale_gradient(activation(0.5), values).item() == pytest.approx(-0.2 + 127 - 128, abs=1e-3)
    assert values.grad.tolist() == [[1.0, 0.0, 0.0]]


@settings(max_examples=30)
@given(seed=st.integers(0, 2**31), zero_point=st.integers(-128, 0))
def test_the_gradient_of_a_scale_is_the_sum_over_its_values(seed, zero_point) -> None:
    values = torch.randn(2, 50, generator=torch.Generator().manual_seed(seed)) * 3
    found = scale_gradient(activation(0.02, zero_point), values)
    position = values / 0.02
    integer = (position.round() + zero_point).clamp(-128, 127) - zero_point
    is_inside = (position > -128 - zero_point) & (position < 127 - zero_point)
    expected = torch.where(is_inside, integer - position, integer).sum()
    assert found.item() == pytest.approx(expected.item(), abs=0.05)


def test_channels_of_a_weight_learn_apart() -> None:
    quant = weight()
    values = torch.tensor([[1.27, 0.503], [0.127, -0.0504]], requires_grad=True)
    quant(values.detach())
    found = scale_gradient(quant, values)
    # The largest weight stands at the end of the range and pulls with 127; the other one with its rounding error.
    assert found.tolist() == pytest.approx([127 + 50 - 50.3, 127 - 50 + 50.4], abs=1e-2)


def test_channels_last_memory_gives_the_same_gradient() -> None:
    torch.manual_seed(0)
    values = torch.randn(2, 3, 4, 5)
    plain = scale_gradient(activation(0.01), values)
    assert torch.allclose(scale_gradient(activation(0.01), values.to(memory_format=torch.channels_last)), plain)


def test_a_scale_stays_positive_whatever_the_step() -> None:
    quant = activation(0.5)
    quant.learn()
    optimizer = torch.optim.SGD([quant.log_scale], lr=1e4)
    quant(torch.randn(1, 100)).sum().backward()
    optimizer.step()
    quant.settle()
    assert quant.scale.item() > 0


def test_settling_keeps_what_was_learned_and_leaves_no_parameter() -> None:
    quant = activation(0.5)
    quant.learn()
    with torch.no_grad():
        quant.log_scale += 0.1
    quant.settle()
    assert quant.scale.item() == pytest.approx(0.5 * 1.10517, rel=1e-4)
    assert list(quant.parameters()) == []


def test_a_weight_range_follows_its_weight_until_it_is_learned() -> None:
    quant, values = weight(), torch.tensor([[1.27], [2.54]])
    quant(values)
    quant(values * 2)
    assert quant.scale.tolist() == pytest.approx([0.02, 0.04])
    quant.learn()
    quant(values)
    assert quant.scale.tolist() == pytest.approx([0.02, 0.04])


def test_values_that_are_not_finite_are_told_by_layer() -> None:
    quant = activation(1.0)
    quant.name = "blocks.3.conv"
    quant.observe()
    with pytest.raises(StageError, match=r"blocks\.3\.conv gives NaN or infinite values"):
        quant(torch.tensor([1.0, float("inf")]))


def test_a_state_of_many_channels_loads_into_a_fresh_module() -> None:
    trained, fresh = weight(), weight()
    trained(torch.randn(5, 3))
    fresh.load_state_dict(trained.state_dict())
    assert torch.equal(fresh.scale, trained.scale)
