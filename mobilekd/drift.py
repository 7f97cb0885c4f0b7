"""Which tensor of a deployed model drifts first from the network that was trained, and by how much.

Two errors are kept for every activation tensor of the quantization table, both in steps of its scale:

- *error*: against the trained network on the same image. It carries whatever went wrong before.
- *own error*: against the trained network's operator fed with the deployed model's own inputs. What went wrong before
  stands on both sides and cancels; what is left is what this operator adds.

A rounding tie moves one value by one step and then spreads, so an error of some steps deep in a network need not be a
fault. An own error of more than a step or two is one, wherever it stands: so the own error decides.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]

DEFAULT_BOUND_STEPS = 2.0
"""Largest own error that is rounding: one step for the operator's own rounding, one for a second rounding inside it."""
MEAN_PART = 0.1
"""The bound of the mean own error, as a part of the bound: a fifth of a step by default. Ties round few values another
way; a wrong scale, bias or rounding rule moves most of them, if by less than a step. A tensor that a runtime does not
round at all is a quarter of a step off on average."""
OFF_STEPS = 0.5
_FARTHEST_STEPS = 255.0


@dataclass(frozen=True, slots=True)
class TensorDrift:
    """How far one tensor of a deployed model is from the trained network. Errors in steps of the tensor's scale.

    Attributes:
        name: Tensor of stripped.onnx.
        operator: What makes it, as "Conv+Relu".
        max_error_steps, mean_error_steps: Against the trained network on the same images.
        own_max_error_steps, own_mean_error_steps: Against the trained operator on the deployed model's own inputs.
        share_off: Share of values more than half a step from the trained network's, 0 to 1.
        cosine: Cosine similarity with the trained network's values; 1.0 where both are zero throughout.
    """

    name: str
    operator: str
    max_error_steps: float
    mean_error_steps: float
    own_max_error_steps: float
    own_mean_error_steps: float
    share_off: float
    cosine: float

    def passes(self, bound_steps: float) -> bool:
        """Return whether the operator adds more than rounding: its own max passes the bound, or its mean its part."""
        return self.own_max_error_steps > bound_steps or self.own_mean_error_steps > MEAN_PART * bound_steps


@dataclass(frozen=True, slots=True)
class Walk:
    """One deployed model, tensor by tensor.

    Attributes:
        kernels: The kernel set that it ran with.
        tensors: In graph order.
        absent: Tensors of the table that the file does not have: fused away, folded, or an input that it takes in
            float. The operators around them are compared as one.
    """

    deployment: str
    kernels: str
    tensors: tuple[TensorDrift, ...]
    absent: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Values:
    """What flows through one tensor, of one shape [images, ...] each, and its step.

    Attributes:
        reference: In the trained network.
        own_reference: What the trained operator makes of the deployed model's inputs.
        deployed: In the deployed model.
        step: The tensor's scale.
    """

    reference: Float32
    own_reference: Float32
    deployed: Float32
    step: float


def measure_drift(name: str, operator: str, values: Values) -> TensorDrift:
    """Return how far a tensor has drifted. A value that is no finite number counts as 255 steps off.

    Example:
        >>> trained = np.array([[1.0, 2.0]], np.float32)
        >>> found = measure_drift("added", "Add", Values(trained, trained + np.float32(0.5), trained + 1, step=0.5))
        >>> found.max_error_steps, found.own_max_error_steps
        (2.0, 1.0)
    """
    error = _steps(values.deployed, values.reference, values.step)
    own = _steps(values.deployed, values.own_reference, values.step)
    return TensorDrift(
        name=name,
        operator=operator,
        max_error_steps=round(float(error.max()), 3),
        mean_error_steps=round(float(error.mean()), 5),
        own_max_error_steps=round(float(own.max()), 3),
        own_mean_error_steps=round(float(own.mean()), 5),
        share_off=round(float((error > OFF_STEPS).mean()), 5),
        cosine=round(_cosine(values.deployed, values.reference), 6),
    )


def first_drift(tensors: Sequence[TensorDrift], bound_steps: float) -> TensorDrift | None:
    """Return the first tensor, in graph order, whose operator adds more than rounding; None when there is none."""
    return next((one for one in tensors if one.passes(bound_steps)), None)


def worst_tensor(tensors: Sequence[TensorDrift]) -> TensorDrift:
    """Return the tensor whose operator adds most; of equals the one with the largest mean, then the first."""
    return max(tensors, key=badness)


def badness(tensor: TensorDrift) -> tuple[float, float, float]:
    """Return what sorts tensors by how much their operators add."""
    return tensor.own_max_error_steps, tensor.own_mean_error_steps, tensor.max_error_steps


def told(tensor: TensorDrift) -> str:
    """Return one tensor in words, for a message.

    Example:
        >>> told(TensorDrift("added", "Add", 9.0, 1.25, 7.0, 0.5, 0.4, 0.98))
        "'added' (Add): own error max 7, mean 0.5; error max 9, mean 1.25 (steps)"
    """
    return (
        f"{tensor.name!r} ({tensor.operator}): "
        f"own error max {tensor.own_max_error_steps:.3g}, mean {tensor.own_mean_error_steps:.3g}; "
        f"error max {tensor.max_error_steps:.3g}, mean {tensor.mean_error_steps:.3g} (steps)"
    )


def stacked(by_image: Sequence[Mapping[str, Float32]], name: str) -> Float32:
    """Return one tensor of all images, [images, ...]."""
    return np.stack([values[name] for values in by_image])


def _steps(found: Float32, expected: Float32, step: float) -> NDArray[np.float64]:
    error = np.abs(found.astype(np.float64) - expected.astype(np.float64)) / step
    return np.nan_to_num(error, nan=_FARTHEST_STEPS, posinf=_FARTHEST_STEPS)


def _cosine(found: Float32, expected: Float32) -> float:
    one, other = (np.nan_to_num(values.astype(np.float64).reshape(-1)) for values in (found, expected))
    lengths = float(np.linalg.norm(one) * np.linalg.norm(other))
    if lengths == 0:
        return float(not one.any() and not other.any())
    return float(one @ other) / lengths
