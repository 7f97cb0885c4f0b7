"""Where a window moves over a map: ONNX's explicit pads as TFLite's SAME, VALID or a PAD."""

from dataclasses import dataclass

import numpy as np

from mobilekd.backends._tflite_call import Call, clamp_of
from mobilekd.backends._tflite_layout import NHWC
from mobilekd.backends._tflite_source import QUANTIZE
from mobilekd.errors import StageError

SAME, VALID = 0, 1
Pair = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Window:
    """Height, then width. `begins` and `ends` are the pads of ONNX, those that a rounded-up size needs included."""

    kernel: Pair
    strides: Pair
    dilations: Pair
    begins: Pair
    ends: Pair
    padding: int


def window(call: Call, kernel: tuple[int, ...]) -> Window:
    """Return the window of a convolution or a pool.

    Raises:
        StageError: It has not two dimensions.
    """
    node = call.node
    if len(kernel) != 2:
        raise StageError(f"{node.op} {node.name}: a window of {len(kernel)} dimensions; TFLite has 2", code="MKD-420")
    strides, dilations = node.integers("strides", (1, 1)), node.integers("dilations", (1, 1))
    pads = _pads(call, kernel, strides, dilations)
    sizes, results = call.shape(0)[2:], call.out_shape()[2:]
    spans = [(one - 1) * dilation + 1 for one, dilation in zip(kernel, dilations, strict=True)]
    needed = [max(0, (results[i] - 1) * strides[i] + spans[i] - sizes[i]) for i in (0, 1)]
    begins, ends = pads[:2], [needed[i] - pads[i] for i in (0, 1)]
    is_same = all(
        results[i] == -(-sizes[i] // strides[i]) and begins[i] == needed[i] // 2 and ends[i] >= 0 for i in (0, 1)
    )
    is_valid = not any(begins) and max(ends) <= 0
    return Window(
        (kernel[0], kernel[1]),
        (strides[0], strides[1]),
        (dilations[0], dilations[1]),
        (begins[0], begins[1]),
        (max(0, ends[0]), max(0, ends[1])),
        VALID if is_valid or not is_same else SAME,
    )


def _pads(call: Call, kernel: tuple[int, ...], strides: tuple[int, ...], dilations: tuple[int, ...]) -> tuple[int, ...]:
    mode = call.node.text("auto_pad", "NOTSET")
    if mode in ("NOTSET", "VALID"):
        return call.node.integers("pads", (0, 0, 0, 0)) if mode == "NOTSET" else (0, 0, 0, 0)
    sizes = call.shape(0)[2:]
    totals = [
        max(0, (-(-sizes[i] // strides[i]) - 1) * strides[i] + (kernel[i] - 1) * dilations[i] + 1 - sizes[i])
        for i in (0, 1)
    ]
    small, large = [total // 2 for total in totals], [total - total // 2 for total in totals]
    return (*small, *large) if mode == "SAME_UPPER" else (*large, *small)


def place(call: Call, frame: Window, *, fill: float) -> tuple[int, Window]:
    """Return the input in NHWC, padded where TFLite has no padding of its own that is equal, and its window."""
    value = call.read(0, NHWC).index
    if frame.padding == SAME or not any((*frame.begins, *frame.ends)):
        return value, frame
    amounts = np.array([[0, 0], *zip(frame.begins, frame.ends, strict=True), [0, 0]], np.int32)
    tensor = call.tensors.builder.tensors[value]
    shape = [size + int(pair.sum()) for size, pair in zip(tensor.shape, amounts, strict=True)]
    inputs = [value, call.tensors.constant("mobilekd/pads", amounts)]
    kind = "PAD"
    if fill != 0.0 and not _is_nonnegative(call):
        kind = "PADV2"
        lowest = np.array(-128, np.int8) if call.is_int8 else np.array(fill, np.float32)
        inputs.append(call.tensors.constant("mobilekd/lowest", lowest, tensor.quant))
    return call.emit(kind, inputs, "padded", shape, quant=tensor.quant), frame


def _is_nonnegative(call: Call) -> bool:
    """Return whether the input comes out of a clamp at 0: then 0 never wins a maximum, and the faster PAD is right."""
    maker = call.source.maker(call.node.inputs[0])
    if maker is not None and maker.op == QUANTIZE:
        maker = call.source.maker(maker.inputs[0])
    clamp = clamp_of(call.source, maker) if maker is not None else None
    return clamp is not None and clamp[0] >= 0.0
