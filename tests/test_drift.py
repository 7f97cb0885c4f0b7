import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mobilekd.drift import TensorDrift, Values, first_drift, measure_drift, worst_tensor

STEP = 0.25
integers = arrays(np.int8, (2, 3, 4))


def drift(reference: np.ndarray, deployed: np.ndarray, own_reference: np.ndarray | None = None) -> TensorDrift:
    own = reference if own_reference is None else own_reference
    reals = [STEP * values.astype(np.float32) for values in (reference, own, deployed)]
    return measure_drift("t", "Conv", Values(*reals, step=STEP))


def chain(own_errors: list[float]) -> list[TensorDrift]:
    """Return tensors in a row; what one operator adds stands in the error of all that follow."""
    totals = np.cumsum(own_errors)
    return [
        TensorDrift(f"t{index}", "Conv", float(total), float(total) / 10, own, own / 10, 0.1, 0.99)
        for index, (own, total) in enumerate(zip(own_errors, totals, strict=True))
    ]


@given(values=integers)
def test_a_tensor_does_not_drift_from_itself(values: np.ndarray) -> None:
    found = drift(values, values)
    assert (found.max_error_steps, found.mean_error_steps, found.share_off, found.cosine) == (0, 0, 0, 1)


@given(values=integers, off=st.integers(-50, 50))
def test_a_shift_by_whole_steps_is_the_error(values: np.ndarray, off: int) -> None:
    found = drift(values, values.astype(np.int32) + off)
    assert (found.max_error_steps, found.mean_error_steps) == (abs(off), abs(off))


def test_figures_of_a_hand_worked_case() -> None:
    reference = np.array([[4, 0, 3, 0]])
    deployed = np.array([[4, 0, 0, 4]])
    found = drift(reference, deployed, own_reference=np.array([[4, 0, 0, 3]]))
    assert (found.max_error_steps, found.mean_error_steps, found.share_off) == (4.0, 1.75, 0.5)
    assert (found.own_max_error_steps, found.own_mean_error_steps) == (1.0, 0.25)
    assert found.cosine == pytest.approx(16 / (5 * np.sqrt(32)), abs=1e-6)


def test_a_value_that_is_no_number_is_as_far_off_as_int8_goes() -> None:
    found = drift(np.ones((1, 2)), np.array([[1.0, np.nan]]))
    assert (found.max_error_steps, found.own_max_error_steps) == (255.0, 255.0)


def test_an_empty_map_is_like_an_empty_map_and_unlike_any_other() -> None:
    nothing, something = np.zeros((1, 3)), np.ones((1, 3))
    assert (drift(nothing, nothing).cosine, drift(nothing, something).cosine) == (1.0, 0.0)


@given(
    fault_at=st.integers(0, 19), fault=st.floats(2.01, 255), ties=st.lists(st.floats(0, 2), min_size=20, max_size=20)
)
def test_a_planted_fault_is_named_and_nothing_before_it(fault_at: int, fault: float, ties: list[float]) -> None:
    own = [*ties[:fault_at], fault, *ties[fault_at + 1 :]]
    first = first_drift(chain(own), bound_steps=2.0)
    assert first is not None
    assert first.name == f"t{fault_at}"


@given(ties=st.lists(st.floats(0, 2), min_size=1, max_size=30))
def test_ties_that_add_up_are_no_drift(ties: list[float]) -> None:
    assert first_drift(chain(ties), bound_steps=2.0) is None


def test_most_values_off_by_less_than_the_bound_are_drift_too() -> None:
    biased = TensorDrift("t", "Conv", 1.0, 0.5, 1.0, 0.5, 0.5, 0.99)
    assert first_drift([biased], bound_steps=2.0) == biased


def test_a_higher_bound_lets_more_pass() -> None:
    tensors = chain([0, 3, 9])
    assert [first_drift(tensors, bound) for bound in (2, 5, 10)] == [tensors[1], tensors[2], None]


def test_the_worst_tensor_adds_most_and_is_not_the_farthest_off() -> None:
    assert worst_tensor(chain([0, 5, 1])).name == "t1"
