"""Activations: those with an int8 form that rounds once, and those written out in float."""

from collections.abc import Sequence

import numpy as np

from mobilekd.backends._tflite_call import Call, clamp_of
from mobilekd.backends._tflite_math import aligned, float_op, number, number_as_int8
from mobilekd.backends._tflite_model import Quant
from mobilekd.backends._tflite_tensors import Value
from mobilekd.errors import StageError

_ACTIVATIONS: dict[tuple[float, float], str] = {(0.0, 6.0): "RELU6", (-1.0, 1.0): "RELU_N1_TO_1"}


def clip(call: Call) -> None:
    """Write Clip: in int8 as integers after rounding, which commutes with it; else as RELU6 or MINIMUM and MAXIMUM."""
    bounds = clamp_of(call.source, call.node)
    if bounds is None:
        raise StageError(f"Clip {call.node.name}: bounds must be constants", code="MKD-420")
    value = call.read()
    if call.is_int8:
        call.clamp(value, bounds)
    elif bounds in _ACTIVATIONS:
        call.finish(_ACTIVATIONS[bounds], [value.index], value.axes)
    else:
        steps = [("MAXIMUM", bounds[0])] if np.isfinite(bounds[0]) else []
        _chain(call, value, steps + ([("MINIMUM", bounds[1])] if np.isfinite(bounds[1]) else []))


def leaky_relu(call: Call) -> None:
    """Write LeakyRelu; in int8 as the larger of x and slope * x, each rounded once.

    LEAKY_RELU's int8 kernels are one step off for 5 % of values in all kernel sets (LiteRT 2.3.0).
    """
    slope, value = float(call.node.number("alpha", 0.01)), call.read()
    if not call.is_int8:
        call.finish("LEAKY_RELU", [value.index], value.axes, options={"alpha": slope})
        return
    quant, shape = call.sinks[0].quant, call.tensors.builder.tensors[value.index].shape
    assert quant is not None
    same = call.tensors.requantize(value.index, call.name("x"), quant)
    scaled = call.emit("MUL", [value.index, number_as_int8(call, slope)], "scaled", shape, quant=quant)
    call.finish("MAXIMUM", [same, scaled], value.axes)


def leaky_is_int8(call: Call) -> bool:
    """Return whether a LeakyRelu is the larger of x and slope * x."""
    return 0.0 < call.node.number("alpha", 0.01) <= 1.0


def hard_sigmoid(call: Call) -> None:
    """Write HardSigmoid of slope 1/6 as relu6(x + 3) / 6: the sum at 6 x the scale has the very integers of the result.

    Any other slope is clip(slope * x + shift, 0, 1) in float.
    """
    slope, shift = float(call.node.number("alpha", 0.2)), float(call.node.number("beta", 0.5))
    value = call.read()
    if not call.is_int8:
        _chain(call, value, [("MUL", slope), ("ADD", shift), ("MAXIMUM", 0.0), ("MINIMUM", 1.0)])
        return
    quant = call.sinks[0].quant
    assert quant is not None
    six = Quant((float(np.float32(6.0 * quant.scale[0])),), quant.zero_point)
    shape = call.tensors.builder.tensors[value.index].shape
    inputs, relu6 = [value.index, number_as_int8(call, 3.0)], {"fusedActivationFunction": 3}
    total = call.emit("ADD", inputs, "times_six", shape, quant=six, options=relu6)
    call.finish("MUL", [total, number_as_int8(call, 1.0 / 6.0)], value.axes)


def hard_sigmoid_is_int8(call: Call) -> bool:
    """Return whether a HardSigmoid is relu6(x + 3) / 6."""
    return abs(call.node.number("alpha", 0.2) - 1 / 6) < 1e-6 and call.node.number("beta", 0.5) == 0.5


def gelu(call: Call) -> None:
    """Write Gelu: GELU is exact in int8 (a table of 256 values in all kernel sets)."""
    value = call.read()
    is_tanh = call.node.text("approximate", "none") == "tanh"
    call.finish("GELU", [value.index], value.axes, options={"approximate": is_tanh})


def elu(call: Call) -> None:
    """Write Elu as relu(x) + alpha * (exp(min(x, 0)) - 1): the reference kernels have no ELU."""
    value = call.read()
    below = float_op(call, "MINIMUM", [value.index, number(call, 0.0)], "below", value)
    grown = float_op(call, "EXP", [below], "exp", value)
    negative = float_op(call, "SUB", [grown, number(call, 1.0)], "negative", value)
    if (alpha := call.node.number("alpha", 1.0)) != 1.0:
        negative = float_op(call, "MUL", [negative, number(call, alpha)], "scaled", value)
    call.finish("ADD", [float_op(call, "RELU", [value.index], "positive", value), negative], value.axes)


def softplus(call: Call) -> None:
    """Write Softplus as relu(x) + log(1 + exp(-|x|)), which does not overflow."""
    value = call.read()
    call.finish("ADD", _softplus_terms(call, value), value.axes)


def mish(call: Call) -> None:
    """Write Mish as x * tanh(softplus(x))."""
    value = call.read()
    total = float_op(call, "ADD", _softplus_terms(call, value), "softplus", value)
    call.finish("MUL", [value.index, float_op(call, "TANH", [total], "tanh", value)], value.axes)


def prelu(call: Call) -> None:
    """Write PRelu by a constant slope as relu(x) - slope * relu(-x)."""
    value = call.read()
    slope = aligned(call.need_constant(1, "the slope").astype(np.float32), value.axes)
    minus = float_op(call, "NEG", [value.index], "minus", value)
    negative = float_op(call, "RELU", [minus], "negative", value)
    scaled = float_op(call, "MUL", [negative, call.tensors.constant(call.node.inputs[1], slope)], "scaled", value)
    call.finish("SUB", [float_op(call, "RELU", [value.index], "positive", value), scaled], value.axes)


def _softplus_terms(call: Call, value: Value) -> list[int]:
    size = float_op(call, "ABS", [value.index], "abs", value)
    minus = float_op(call, "NEG", [size], "minus", value)
    grown = float_op(call, "EXP", [minus], "exp", value)
    total = float_op(call, "ADD", [grown, number(call, 1.0)], "plus_one", value)
    return [float_op(call, "RELU", [value.index], "positive", value), float_op(call, "LOG", [total], "log", value)]


def _chain(call: Call, value: Value, steps: Sequence[tuple[str, float]]) -> None:
    """Write operators by a number, one behind the other."""
    index = value.index
    for kind, operand in steps[:-1]:
        index = float_op(call, kind, [index, number(call, operand)], kind.lower(), value)
    kind, operand = steps[-1]
    call.finish(kind, [index, number(call, operand)], value.axes)
