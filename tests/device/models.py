"""Small int8 models of the three runtimes, made by our own converters, with their inputs and what the host computes."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mobilekd.backend import DeployedFacts
from mobilekd.plugins import BACKENDS
from mobilekd.profile import Deployment
from tests.backends.tiny import images, session_logits, write_tiny

SAMPLES = 16


class Silent:
    """Shows nothing."""

    def say(self, line: str) -> None:
        pass


@dataclass(frozen=True)
class Model:
    """A model file with `SAMPLES` raw inputs beside it.

    Attributes:
        backend: As "tflite".
        file, inputs: The model, and its raw inputs.
        facts: What the conversion left.
        logits: [samples, classes] of the host backend.
    """

    backend: str
    file: Path
    inputs: Path
    facts: DeployedFacts
    logits: NDArray[np.float32]

    def read(self, raw: Path) -> NDArray[np.float32]:
        """Return raw outputs as logits [samples, classes]."""
        output = self.facts.output
        values = np.fromfile(raw, output.dtype).reshape(self.logits.shape).astype(np.float32)
        return values if output.scale is None else (values - output.zero_point) * np.float32(output.scale)


def make(backend: str, folder: Path) -> Model:
    """Convert the tiny network to int8; the TFLite file has int8 inputs and outputs too."""
    deployment = Deployment(backend=backend, io="int8" if backend == "tflite" else "float32")
    request = write_tiny(folder).for_(deployment)
    converter = BACKENDS.load(backend)()
    facts = converter.convert(request)
    batch = images(SAMPLES)
    session = converter.open(request.out / facts.file, facts, kernels=converter.kernels[0], threads=1)
    raw = batch.transpose(0, 2, 3, 1) if facts.input.layout == "NHWC" else batch
    if facts.input.scale is not None:
        raw = np.clip(np.rint(raw / np.float32(facts.input.scale)) + facts.input.zero_point, -128, 127)
    inputs = folder / "inputs.raw"
    np.ascontiguousarray(raw, facts.input.dtype).tofile(inputs)
    return Model(backend, request.out / facts.file, inputs, facts, session_logits(session, batch))
