"""One loaded TFLite model, and the interpreter for each kernel set."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobilekd.backend import Float32
from mobilekd.errors import StageError

_RESOLVERS = {"xnnpack": "AUTO", "builtin": "BUILTIN_WITHOUT_DEFAULT_DELEGATES", "reference": "BUILTIN_REF"}


class TfliteSession:
    """One loaded TFLite model."""

    def __init__(self, model: Path, kernels: str, threads: int) -> None:
        self._interpreter = interpreter(model, kernels, threads)
        self._source = self._interpreter.get_input_details()[0]
        self._result = self._interpreter.get_output_details()[0]

    def load_input(self, image: Float32) -> None:
        """Copy one image [1, channels, height, width] into the runtime, quantized when the model's input is int8."""
        value: NDArray[Any] = np.ascontiguousarray(image.transpose(0, 2, 3, 1), np.float32)
        if self._source["dtype"] == np.int8:
            scale, zero_point = self._source["quantization"]
            value = np.clip(np.rint(value / scale) + zero_point, -128, 127).astype(np.int8)
        self._interpreter.set_tensor(self._source["index"], value)

    def invoke(self) -> None:
        """Run the model once on the loaded input."""
        self._interpreter.invoke()

    def read_output(self) -> Float32:
        """Return the logits [classes] of the last run, dequantized when the model's output is int8."""
        value = self._interpreter.get_tensor(self._result["index"])[0]
        if self._result["dtype"] != np.int8:
            return np.asarray(value, np.float32)
        scale, zero_point = self._result["quantization"]
        return np.asarray((value.astype(np.float32) - zero_point) * scale, np.float32)


def interpreter(model: Path | bytes, kernels: str, threads: int) -> Any:
    """Return a loaded interpreter of a file, or of its content, with the kernels asked for, ready to run."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    if kernels not in _RESOLVERS:
        raise StageError(f"TFLite has no kernels {kernels!r}", hint=f"known: {', '.join(_RESOLVERS)}", code="MKD-422")
    path, content = (None, model) if isinstance(model, bytes) else (str(model), None)
    try:
        interpreter = Interpreter(
            path,
            model_content=content,
            num_threads=threads,
            experimental_op_resolver_type=OpResolverType[_RESOLVERS[kernels]],
        )
        interpreter.allocate_tensors()
    except (RuntimeError, ValueError) as cause:
        named = path or "the model"
        raise StageError(f"{named} does not load in TFLite with {kernels} kernels: {cause}", code="MKD-422") from cause
    return interpreter
