"""Running a deployed model on this host, so that a bundle can carry what it must answer."""

from pathlib import Path
from typing import Protocol

import numpy as np

from mobilekd.backend import Backend, DeployedFacts, Float32
from mobilekd.plugins import BACKENDS
from mobilekd.quant_table import QuantTable


class Runtime(Protocol):
    """What can run a deployed model."""

    def missing(self, backend: str) -> str | None:
        """Return why a backend can't run here, with the command that mends it; None when it can."""

    def parity_steps(self, backend: str) -> float:
        """Return the largest logit error, in output steps, that is rounding and not drift."""

    def logits(self, backend: str, model: Path, facts: DeployedFacts, image: Float32, scratch: Path) -> Float32:
        """Return the logits [classes] for one image [1, channels, height, width], normalised."""


class HostRuntime:
    """The backends of this host; each run is a process of its own, so that a crash of a runtime is an error here."""

    def missing(self, backend: str) -> str | None:
        """Return why a backend can't run here."""
        if backend not in BACKENDS.names():
            return f"this version of mobilekd has no backend {backend!r}"
        return _backend(backend).missing()

    def parity_steps(self, backend: str) -> float:
        """Return the tolerance of a backend, in output steps."""
        return _backend(backend).output_parity_steps

    def logits(self, backend: str, model: Path, facts: DeployedFacts, image: Float32, scratch: Path) -> Float32:
        """Return the logits under the kernels that apps use by default."""
        from mobilekd.worker import run_model

        kernels = _backend(backend).kernels[0]
        logits: Float32 = run_model(backend, model, facts, image, kernels=kernels, threads=1, scratch=scratch)[0]
        return logits


HOST: Runtime = HostRuntime()


def logit_step(table: QuantTable, facts: DeployedFacts, logits: Float32) -> float:
    """Return the quantization step of the logits, in which their error is counted.

    It is the scale of an int8 output, else the table's scale of the logits,
    else (the last layer stays float) a 255th of the spread of these logits.
    """
    if facts.output.scale is not None:
        return facts.output.scale
    if (quant := table.by_name().get("logits")) is not None:
        return quant.scale[0]
    return max(float(logits.max() - logits.min()) / 255, 1e-6)


def error_steps(got: Float32, expected: Float32, step: float) -> float:
    """Return the largest difference of two logit vectors, in quantization steps; infinite when it is not a number."""
    error = float(np.max(np.abs(got.astype(np.float64) - expected.astype(np.float64)))) / step
    return error if np.isfinite(error) else float("inf")


def _backend(name: str) -> Backend:
    backend: Backend = BACKENDS.load(name)()
    return backend
