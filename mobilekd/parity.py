"""Is the deployed model the model that was trained? Answers and logits, image by image."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mobilekd.errors import StageError
from mobilekd.profile import Tolerance


@dataclass(frozen=True, slots=True)
class Parity:
    """A deployed model against its reference on one split. Shares are 0 to 1, errors in steps of the int8 output.

    Attributes:
        top1_reference, top1_deployed: Share of images whose answer is the label.
        top1_agreement: Share of images on which both give one answer.
        max_error_steps, mean_error_steps: Largest and mean difference of a logit, divided by the output's scale.
    """

    top1_reference: float
    top1_deployed: float
    top1_agreement: float
    max_error_steps: float
    mean_error_steps: float


def compare(
    reference: NDArray[np.float32], deployed: NDArray[np.float32], labels: NDArray[np.int64], step: float
) -> Parity:
    """Return how far a deployed model is from its reference.

    Args:
        reference: Logits of the trained network, [n, classes].
        deployed: Logits of the deployed model, [n, classes].
        labels: [n].
        step: Scale of the int8 output: one step in units of the logits.

    Raises:
        StageError: The shapes differ, or a logit is not finite.

    Example:
        >>> logits = np.array([[0.0, 1.0], [2.0, 0.0]], np.float32)
        >>> compare(logits, logits + np.float32(0.5), np.array([1, 1]), step=0.25).max_error_steps
        2.0
    """
    if reference.shape != deployed.shape:
        raise StageError(
            f"the deployed model gives logits {list(deployed.shape)}, the trained {list(reference.shape)}",
            code="MKD-422",
        )
    if not np.isfinite(deployed).all():
        raise StageError(
            f"{int((~np.isfinite(deployed)).any(axis=1).sum())} images give logits that are not finite", code="MKD-422"
        )
    answers, expected = deployed.argmax(axis=1), reference.argmax(axis=1)
    error = np.abs(deployed.astype(np.float64) - reference.astype(np.float64)) / step
    return Parity(
        top1_reference=float((expected == labels).mean()),
        top1_deployed=float((answers == labels).mean()),
        top1_agreement=float((answers == expected).mean()),
        max_error_steps=round(float(error.max()), 3),
        mean_error_steps=round(float(error.mean()), 5),
    )


_SUFFIXES = "_nchwc|_pre_q|_unrounded"
"""What is put behind the name of a layer: by ONNX Runtime for its blocked layout and for a layer that a QuantizeLinear
follows, by our TFLite writer for the float tensor before its rounding."""


def decided_float_ops(float_ops: Sequence[str], decided: Iterable[str]) -> tuple[str, ...]:
    """Return the float layers of a deployed model that were decided to stay float.

    Args:
        float_ops: As the runtime names them; it may put words of its own around a name.
        decided: Tensors that such layers write, as float_operators of the quantization table names them.

    Example:
        >>> decided_float_ops(("fused head/Gemm", "conv_1"), ["conv", "head"])
        ('fused head/Gemm',)
    """
    names = "|".join(re.escape(name) for name in decided)
    own_word = re.compile(rf"(?<![\w.-])(?:{names})(?:{_SUFFIXES})*(?![\w.-])")
    return tuple(one for one in float_ops if names and own_word.search(one))


def broken_tolerances(
    parity: Parity, float_ops: int | None, tolerance: Tolerance, *, is_default: bool = True
) -> tuple[str, ...]:
    """Return what does not hold, a phrase each.

    float_ops counts the layers in float that nobody decided to keep there; None for a model that is float throughout.
    is_default is False for a kernel set that is not the backend's default.
    """
    prefix = "" if is_default else "other_"
    allowed = tolerance.top1_drop if is_default else tolerance.other_top1_drop
    wanted = tolerance.agreement if is_default else tolerance.other_agreement
    drift = abs(parity.top1_deployed - parity.top1_reference)
    failures = []
    if drift > allowed + 1e-9:
        failures.append(f"top-1 differs by {drift:.2%} (tolerance.{prefix}top1_drop {allowed:.2%})")
    if parity.top1_agreement < wanted - 1e-9:
        failures.append(f"agreement {parity.top1_agreement:.2%} (tolerance.{prefix}agreement {wanted:.2%})")
    if float_ops is not None and float_ops > tolerance.float_ops:
        failures.append(f"{float_ops} layers in float (tolerance.float_ops {tolerance.float_ops})")
    return tuple(failures)
