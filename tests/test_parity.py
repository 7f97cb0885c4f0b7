import numpy as np
import pytest

from mobilekd.errors import StageError
from mobilekd.parity import Parity, broken_tolerances, compare, decided_float_ops
from mobilekd.profile import Tolerance

REFERENCE = np.array([[0.0, 1.0], [2.0, 0.0], [0.0, 3.0], [1.0, 0.0]], np.float32)
LABELS = np.array([1, 0, 1, 1])


def test_a_model_agrees_with_itself() -> None:
    parity = compare(REFERENCE, REFERENCE, LABELS, step=0.5)
    assert (parity.top1_agreement, parity.max_error_steps) == (1.0, 0.0)


def test_figures_of_a_hand_worked_case() -> None:
    deployed = REFERENCE.copy()
    deployed[0] = [2.0, 1.0]
    parity = compare(REFERENCE, deployed, LABELS, step=0.5)
    assert (parity.top1_reference, parity.top1_deployed, parity.top1_agreement) == (0.75, 0.5, 0.75)
    assert (parity.max_error_steps, parity.mean_error_steps) == (4.0, 0.5)


def test_logits_that_are_not_finite_are_named() -> None:
    deployed = REFERENCE.copy()
    deployed[1, 0] = np.nan
    with pytest.raises(StageError, match="1 images give logits that are not finite"):
        compare(REFERENCE, deployed, LABELS, step=1.0)


def test_logits_of_other_classes_are_refused() -> None:
    with pytest.raises(StageError, match=r"\[4, 3\]"):
        compare(REFERENCE, np.zeros((4, 3), np.float32), LABELS, step=1.0)


def test_each_broken_tolerance_is_told() -> None:
    deployed = REFERENCE.copy()
    deployed[0] = [2.0, 1.0]
    parity = compare(REFERENCE, deployed, LABELS, step=0.5)
    told = broken_tolerances(parity, 3, Tolerance())
    assert [phrase.split("(tolerance.")[1].split()[0] for phrase in told] == ["top1_drop", "agreement", "float_ops"]


def test_a_better_deployed_model_is_drift_too() -> None:
    deployed = REFERENCE.copy()
    deployed[3] = [0.0, 1.0]
    parity = compare(REFERENCE, deployed, LABELS, step=0.5)
    assert broken_tolerances(parity, None, Tolerance(agreement=0.5))


@pytest.mark.parametrize(
    "op", ["conv_5", "node conv_5", "fused conv_5", "conv_5_pre_q_nchwc", "conv_5_unrounded", "block/conv_5/Conv"]
)
def test_a_decided_layer_is_known_in_the_words_of_a_runtime(op: str) -> None:
    assert decided_float_ops([op], ["head", "conv_5"]) == (op,)


@pytest.mark.parametrize("op", ["conv_51", "conv", "my_conv_5", "conv_5.1", "conv_5_act"])
def test_a_layer_of_another_name_is_not_decided(op: str) -> None:
    assert decided_float_ops([op], ["conv_5"]) == ()


def test_without_a_decision_no_layer_is_decided() -> None:
    assert decided_float_ops(["conv_5", ""], []) == ()


def test_kernels_that_are_not_the_default_have_a_tolerance_of_their_own() -> None:
    parity = Parity(0.9, 0.89, 0.95, 3.0, 0.5)
    assert len(broken_tolerances(parity, 0, Tolerance())) == 2
    assert broken_tolerances(parity, 0, Tolerance(), is_default=False) == ()
    told = broken_tolerances(parity, 0, Tolerance(other_agreement=0.96), is_default=False)
    assert "tolerance.other_agreement" in told[0]
