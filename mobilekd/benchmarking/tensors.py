"""Images in a model's own input format, and logits out of its own output format: what a device sees is raw bytes."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mobilekd.errors import DeviceError, StageError

if TYPE_CHECKING:
    from mobilekd.backend import Float32, TensorFacts

_Dtype = type[np.float32] | type[np.int8]
_DTYPES: dict[str, _Dtype] = {"float32": np.float32, "int8": np.int8}


def pack(images: "Float32", facts: "TensorFacts") -> bytes:
    """Return images as a model of these facts takes them, one after the other.

    Args:
        images: [n, channels, height, width], normalised.
        facts: The model's input; NHWC is transposed, int8 is quantized by its scale and zero point, rounding half to
            even as the host's sessions do.

    Raises:
        StageError: The input is of a type that no deployment of ours has, or int8 without a scale.
    """
    dtype = _dtype_of(facts)
    ordered = images.transpose(0, 2, 3, 1) if facts.layout == "NHWC" else images
    if dtype is np.float32:
        return np.ascontiguousarray(ordered, np.float32).tobytes()
    scale, zero_point = _scheme_of(facts)
    steps = np.rint(ordered / np.float32(scale)) + zero_point
    return np.ascontiguousarray(np.clip(steps, -128, 127).astype(np.int8)).tobytes()


def unpack(content: bytes, facts: "TensorFacts", samples: int) -> "Float32":
    """Return the logits [n, classes] in the raw outputs of n images, dequantized where the model gives int8.

    Raises:
        DeviceError: The bytes are not n outputs of these facts.
    """
    dtype = _dtype_of(facts)
    expected_bytes = samples * int(np.prod(facts.shape)) * dtype().itemsize
    if len(content) != expected_bytes:
        raise DeviceError(
            f"the device gave {len(content)} bytes for {samples} image(s), expected {expected_bytes}",
            hint="the run is incomplete: start it again",
            code="MKD-507",
        )
    values: NDArray[np.generic] = np.frombuffer(content, dtype)
    logits = values.reshape(samples, -1).astype(np.float32)
    if dtype is np.float32:
        return logits
    scale, zero_point = _scheme_of(facts)
    return np.asarray((logits - zero_point) * np.float32(scale), np.float32)


def write_inputs(images: "Float32", facts: "TensorFacts", path: Path) -> None:
    """Write `pack` to a file, which appears only when it is whole: a scratch folder outlives a killed process."""
    beside = path.with_name(f".{path.name}.new")
    beside.write_bytes(pack(images, facts))
    beside.replace(path)


def _dtype_of(facts: "TensorFacts") -> _Dtype:
    if facts.dtype not in _DTYPES:
        raise StageError(
            f"tensor {facts.name} is of type {facts.dtype!r}", hint=f"known: {', '.join(_DTYPES)}", code="MKD-422"
        )
    return _DTYPES[facts.dtype]


def _scheme_of(facts: "TensorFacts") -> tuple[float, int]:
    if facts.scale is None or facts.zero_point is None:
        raise StageError(f"tensor {facts.name} is int8 without a scale", hint="convert the model again", code="MKD-422")
    return facts.scale, facts.zero_point
