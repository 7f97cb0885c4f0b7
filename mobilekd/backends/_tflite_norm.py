"""Pools, reductions, softmax, and normalizations written out."""

from collections.abc import Sequence

import numpy as np

from mobilekd.backends import _tflite_layout as layout
from mobilekd.backends._tflite_call import Call
from mobilekd.backends._tflite_layout import NHWC, Axes
from mobilekd.backends._tflite_math import float_op
from mobilekd.backends._tflite_model import Option
from mobilekd.backends._tflite_shape import kept_quant
from mobilekd.backends._tflite_tensors import Value
from mobilekd.backends._tflite_window import Window, place, window
from mobilekd.errors import StageError

_REDUCTIONS = {"ReduceMean": "MEAN", "ReduceSum": "SUM", "ReduceMax": "REDUCE_MAX", "ReduceMin": "REDUCE_MIN"}


def max_pool(call: Call) -> None:
    """Write MaxPool; pads that TFLite has not are the lowest value, or 0 behind a Relu."""
    if set(call.node.integers("dilations", (1, 1))) != {1}:
        raise StageError(f"MaxPool {call.node.name}: dilations are not known", code="MKD-420")
    index, frame = place(call, window(call, call.node.integers("kernel_shape", ())), fill=-np.inf)
    call.finish("MAX_POOL_2D", [index], NHWC, quant=kept_quant(call), options=_pool_options(frame))


def average_pool(call: Call) -> None:
    """Write AveragePool in float: AVERAGE_POOL_2D rounds at the input's scale, so another scale would round twice."""
    node = call.node
    frame = window(call, node.integers("kernel_shape", ()))
    is_padded = any((*frame.begins, *frame.ends))
    counts_pads = bool(node.number("count_include_pad", 0))
    if is_padded and not counts_pads and frame.padding != 0:
        raise StageError(f"AveragePool {node.name}: its pads have no TFLite form without counting them", code="MKD-420")
    if is_padded and counts_pads:
        if node.number("ceil_mode", 0):
            raise StageError(f"AveragePool {node.name}: ceil_mode with counted pads is not known", code="MKD-420")
        frame = Window(frame.kernel, frame.strides, frame.dilations, frame.begins, frame.ends, 1)
    index, frame = place(call, frame, fill=0.0)
    call.finish("AVERAGE_POOL_2D", [index], NHWC, options=_pool_options(frame))


def global_average_pool(call: Call) -> None:
    """Write GlobalAveragePool as MEAN in float.

    The int8 kernels of MEAN are exact in XNNPACK; built-in and reference are a step off for 3 % of values over 7x7
    and 15 % over 2x2 (LiteRT 2.3.0). In float all three are exact, for 2 us more on a map of 7x7x576.
    """
    _reduce(call, "MEAN", range(2, len(call.shape())), keeps=True)


def global_max_pool(call: Call) -> None:
    """Write GlobalMaxPool as REDUCE_MAX."""
    _reduce(call, "REDUCE_MAX", range(2, len(call.shape())), keeps=True)


def reduce(call: Call) -> None:
    """Write ReduceMean, ReduceSum, ReduceMax or ReduceMin."""
    rank = len(call.shape())
    given = call.constant(1)
    along = call.node.integers("axes", range(rank)) if given is None else [int(one) for one in given.reshape(-1)]
    kind, keeps = _REDUCTIONS[call.node.op], bool(call.node.number("keepdims", 1))
    _reduce(call, kind, [axis % rank for axis in along], keeps=keeps)


def softmax(call: Call) -> None:
    """Write Softmax over one axis, in float: the int8 kernel has a scale of its own, 1/256."""
    rank = len(call.shape())
    axis = int(call.node.number("axis", -1)) % rank
    axes = call.axes() if call.axes()[-1] == axis else layout.last(call.axes(), axis)
    index = call.read(0, axes).index
    if call.node.op == "LogSoftmax":
        call.finish("LOG_SOFTMAX", [index], axes)
    else:
        call.finish("SOFTMAX", [index], axes, options={"beta": 1.0})


def layer_normalization(call: Call) -> None:
    """Write LayerNormalization out in float: TFLite has no operator for it."""
    rank = len(call.shape())
    first = int(call.node.number("axis", -1)) % rank
    own, along = call.axes(), tuple(range(first, rank))
    value = call.read(0, own if own[first:] == along else (*(axis for axis in own if axis < first), *along))
    parameters = [_parameter(call, at, value.axes, first) for at in (1, 2)]
    _normalize(call, value, along, parameters, value.axes)


def instance_normalization(call: Call) -> None:
    """Write InstanceNormalization out in float."""
    value, rank = call.read(), len(call.shape())
    parameters = [_parameter(call, at, value.axes, 1) for at in (1, 2)]
    _normalize(call, value, range(2, rank), parameters, value.axes)


def group_normalization(call: Call) -> None:
    """Write GroupNormalization out in float, on the channels cut into groups."""
    groups, shape = int(call.node.number("num_groups", 1)), call.shape()
    axes = (0, *range(2, len(shape)), 1)
    value = call.read(0, axes)
    parameters = [_parameter(call, at, axes, 1) for at in (1, 2)]
    if groups == 1:
        _normalize(call, value, range(1, len(shape)), parameters, axes)
        return
    stored = layout.stored(shape, axes)
    inner = call.tensors.reshape(value.index, call.name("groups"), (*stored[:-1], groups, shape[1] // groups))
    cut = Value(inner, layout.identity(len(shape) + 1))
    centered, factor = _centered(call, cut, [*range(1, len(shape) - 1), len(shape)])
    normal = float_op(call, "MUL", [centered, factor], "normal", cut)
    steps = [(kind, one) for kind, one in zip(("MUL", "ADD"), parameters, strict=True) if one is not None]
    if not steps:
        call.finish("RESHAPE", [normal, call.tensors.shape_constant(stored)], axes, options={"newShape": list(stored)})
        return
    flat = call.tensors.reshape(normal, call.name("channels"), stored)
    _finish_steps(call, Value(flat, axes), steps)


def _reduce(call: Call, kind: str, along: Sequence[int], *, keeps: bool) -> None:
    value = call.read()
    places = sorted(value.axes.index(axis) for axis in along)
    axes = value.axes if keeps else layout.without(value.axes, along)
    inputs, options = [value.index, call.tensors.shape_constant(places)], {"keepDims": keeps}
    quant = kept_quant(call) if kind == "REDUCE_MAX" else None
    call.finish(kind, inputs, axes, quant=quant, options=options)


def _normalize(call: Call, value: Value, along: Sequence[int], parameters: Sequence[int | None], axes: Axes) -> None:
    centered, factor = _centered(call, value, sorted(axes.index(axis) for axis in along))
    steps = [(kind, one) for kind, one in zip(("MUL", "ADD"), parameters, strict=True) if one is not None]
    _finish_steps(call, Value(centered, axes), [("MUL", factor), *steps])


def _finish_steps(call: Call, value: Value, steps: Sequence[tuple[str, int]]) -> None:
    """Write operators by a constant or a smaller tensor, one behind the other."""
    index = value.index
    for at, (kind, operand) in enumerate(steps[:-1]):
        index = float_op(call, kind, [index, operand], f"step_{at}", value)
    kind, operand = steps[-1]
    call.finish(kind, [index, operand], value.axes)


def _centered(call: Call, value: Value, along: Sequence[int]) -> tuple[int, int]:
    """Return x - mean and 1 / sqrt(variance + epsilon), over dimensions of the TFLite tensor."""
    shape = call.tensors.builder.tensors[value.index].shape
    small = [1 if at in along else size for at, size in enumerate(shape)]
    places, keep = call.tensors.shape_constant(along), {"keepDims": True}
    mean = call.emit("MEAN", [value.index, places], "mean", small, options=keep)
    centered = float_op(call, "SUB", [value.index, mean], "centered", value)
    square = float_op(call, "MUL", [centered, centered], "square", value)
    variance = call.emit("MEAN", [square, places], "variance", small, options=keep)
    epsilon = np.array(call.node.number("epsilon", 1e-5), np.float32)
    total = call.emit("ADD", [variance, call.tensors.constant("mobilekd/epsilon", epsilon)], "shifted", small)
    return centered, call.emit("RSQRT", [total], "rsqrt", small)


def _parameter(call: Call, position: int, axes: Axes, first: int) -> int | None:
    """Return the constant factor or shift of a normalization, its axes beginning at an axis of the input.

    None where there is none, or where it is 1 or 0 throughout and does nothing.
    """
    if not call.has(position):
        return None
    data = call.need_constant(position, "a parameter").astype(np.float32)
    if (data == (1.0 if position == 1 else 0.0)).all():
        return None
    after = len(axes) - first - data.ndim
    full = data.reshape((*[1] * first, *data.shape, *[1] * after)).transpose(axes)
    return call.tensors.constant(call.node.inputs[position], np.ascontiguousarray(full))


def _pool_options(frame: Window) -> dict[str, Option]:
    return {
        "padding": frame.padding,
        "strideH": frame.strides[0],
        "strideW": frame.strides[1],
        "filterHeight": frame.kernel[0],
        "filterWidth": frame.kernel[1],
    }
