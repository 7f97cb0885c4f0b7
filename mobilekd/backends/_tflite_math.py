"""Operators that work value by value."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mobilekd.backends import _tflite_layout as layout
from mobilekd.backends._tflite_layout import Axes
from mobilekd.backends._tflite_lower import Call, Value, clamp_of
from mobilekd.backends._tflite_model import Option, Quant
from mobilekd.errors import StageError

_BINARY = {"Add": "ADD", "Sub": "SUB", "Mul": "MUL", "Div": "DIV", "Max": "MAXIMUM", "Min": "MINIMUM"}
_UNARY = {
    "Sigmoid": "LOGISTIC",
    "Tanh": "TANH",
    "Sqrt": "SQRT",
    "Exp": "EXP",
    "Log": "LOG",
    "Abs": "ABS",
    "Relu": "RELU",
    "HardSwish": "HARD_SWISH",
}
_ACTIVATIONS: dict[tuple[float, float], str] = {(0.0, 6.0): "RELU6", (-1.0, 1.0): "RELU_N1_TO_1"}


def always(call: Call) -> bool:
    """Return True: the int8 kernel rounds the real result once, in all three kernel sets."""
    del call
    return True


def sum_is_int8(call: Call) -> bool:
    """Return whether both sides of an Add, Sub or Mul are int8, a number counting as 127 steps of its 127th part.

    Measured in LiteRT 2.3.0: ADD and SUB differ from the rounded real result in less than 0.01 % of values. MUL is
    exact in XNNPACK; the built-in and reference kernels round the product twice, one step off for 0.3 to 1.6 %.
    """
    return all(_as_int8(call, position) is not None for position in range(2) if call.constant(position) is not None)


def binary(call: Call) -> None:
    """Write an operator of two sides with broadcasting, in the layout of the larger side."""
    axes = _common_axes(call)
    sides = [_side(call, position, axes) for position in range(2)]
    call.finish(_BINARY[call.node.op], sides, axes)


def extremum(call: Call) -> None:
    """Write Max or Min of two sides; the int8 kernels keep one scale, so both sides are brought to that of the result."""
    if len(call.node.inputs) != 2:
        raise StageError(f"{call.node.op} {call.node.name}: {len(call.node.inputs)} inputs; 2 are known")
    axes = _common_axes(call)
    sides = [_side(call, position, axes) for position in range(2)]
    if call.is_int8:
        quant = call.sinks[0].quant
        assert quant is not None
        sides = [
            side if call.quant(at) == quant else call.lowering.requantize(side, call.name(f"side_{at}"), quant)
            for at, side in enumerate(sides)
        ]
    call.finish(_BINARY[call.node.op], sides, axes)


def flows_only(call: Call) -> bool:
    """Return whether no input is a constant."""
    return all(call.constant(position) is None for position in range(len(call.node.inputs)))


def unary(call: Call) -> None:
    """Write an operator of one input, in the layout of its input."""
    value = call.read()
    call.finish(_UNARY[call.node.op], [value.index], value.axes)


def clip(call: Call) -> None:
    """Write Clip: in int8 as integers after rounding, which commutes with it; else as RELU6 or MINIMUM and MAXIMUM."""
    bounds = clamp_of(call.source, call.node)
    if bounds is None:
        raise StageError(f"Clip {call.node.name}: bounds must be constants")
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
    quant, shape = call.sinks[0].quant, call.lowering.builder.tensors[value.index].shape
    assert quant is not None
    same = call.lowering.requantize(value.index, call.name("x"), quant)
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
    shape = call.lowering.builder.tensors[value.index].shape
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


def negate(call: Call) -> None:
    """Write Neg; in int8 as a product with -1, for NEG takes integers without their scales."""
    value = call.read()
    if call.is_int8:
        call.finish("MUL", [value.index, number_as_int8(call, -1.0)], value.axes)
    else:
        call.finish("NEG", [value.index], value.axes)


def reciprocal(call: Call) -> None:
    """Write Reciprocal as 1 / x."""
    value = call.read()
    call.finish("DIV", [_number(call, 1.0), value.index], value.axes)


def power(call: Call) -> None:
    """Write Pow by a constant: a square, a square root, or POW."""
    exponent, value = call.need_constant(1, "the exponent"), call.read()
    if exponent.size == 1 and exponent.item() == 2.0:
        call.finish("MUL", [value.index, value.index], value.axes)
    elif exponent.size == 1 and exponent.item() == 0.5:
        call.finish("SQRT", [value.index], value.axes)
    else:
        sides = _common_axes(call)
        call.finish("POW", [_side(call, 0, sides), _side(call, 1, sides)], sides)


def elu(call: Call) -> None:
    """Write Elu as relu(x) + alpha * (exp(min(x, 0)) - 1): the reference kernels have no ELU."""
    value = call.read()
    below = float_op(call, "MINIMUM", [value.index, _number(call, 0.0)], "below", value)
    grown = float_op(call, "EXP", [below], "exp", value)
    negative = float_op(call, "SUB", [grown, _number(call, 1.0)], "negative", value)
    if (alpha := call.node.number("alpha", 1.0)) != 1.0:
        negative = float_op(call, "MUL", [negative, _number(call, alpha)], "scaled", value)
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
    slope = _aligned(call, call.need_constant(1, "the slope").astype(np.float32), value.axes)
    minus = float_op(call, "NEG", [value.index], "minus", value)
    negative = float_op(call, "RELU", [minus], "negative", value)
    scaled = float_op(call, "MUL", [negative, call.lowering.constant(call.node.inputs[1], slope)], "scaled", value)
    call.finish("SUB", [float_op(call, "RELU", [value.index], "positive", value), scaled], value.axes)


def erf(call: Call) -> None:
    """Refuse Erf outside GELU.

    Raises:
        StageError: Always: TFLite has no operator for it.
    """
    raise StageError(f"Erf {call.node.name} is no part of a GELU; TFLite has no operator for it", hint="use GELU")


def affine(call: Call) -> None:
    """Write BatchNormalization in inference as a product and a sum."""
    scale, bias, mean, variance = (call.need_constant(at, "a parameter").astype(np.float64) for at in range(1, 5))
    factor = scale / np.sqrt(variance + call.node.number("epsilon", 1e-5))
    shape = [1, -1] + [1] * (len(call.shape()) - 2)
    value = call.read()
    sides = [_aligned(call, one.reshape(shape).astype(np.float32), value.axes) for one in (factor, bias - mean * factor)]
    product, total = (call.lowering.constant(f"{call.node.name}/{at}", one) for at, one in enumerate(sides))
    call.finish("ADD", [float_op(call, "MUL", [value.index, product], "scaled", value), total], value.axes)


def float_op(
    call: Call,
    kind: str,
    inputs: Sequence[int],
    part: str,
    like: Value,
    options: dict[str, Option] | None = None,
) -> int:
    """Add an operator whose result is as large as a tensor."""
    return call.emit(kind, inputs, part, call.lowering.builder.tensors[like.index].shape, options=options)


def number_as_int8(call: Call, number: float) -> int:
    """Return a number as 127 steps of its 127th part, which is exact: the kernels multiply by the scale in float32."""
    steps = 0 if number == 0.0 else 127 if number > 0 else -127
    scale = float(np.float32(abs(number) / 127)) or 1.0
    return call.lowering.constant(f"mobilekd/{number:g}", np.array(steps, np.int8), Quant((scale,)))


def _softplus_terms(call: Call, value: Value) -> list[int]:
    size = float_op(call, "ABS", [value.index], "abs", value)
    minus = float_op(call, "NEG", [size], "minus", value)
    grown = float_op(call, "EXP", [minus], "exp", value)
    total = float_op(call, "ADD", [grown, _number(call, 1.0)], "plus_one", value)
    return [float_op(call, "RELU", [value.index], "positive", value), float_op(call, "LOG", [total], "log", value)]


def _chain(call: Call, value: Value, steps: Sequence[tuple[str, float]]) -> None:
    """Write operators by a number, one behind the other."""
    index = value.index
    for kind, number in steps[:-1]:
        index = float_op(call, kind, [index, _number(call, number)], kind.lower(), value)
    kind, number = steps[-1]
    call.finish(kind, [index, _number(call, number)], value.axes)


def _number(call: Call, number: float) -> int:
    return call.lowering.constant(f"mobilekd/{number:g}", np.array(number, np.float32))


def _common_axes(call: Call) -> Axes:
    """Return the layout of the largest side that flows, with all dimensions of the result."""
    rank = len(call.out_shape())
    flowing = [at for at in range(2) if call.constant(at) is None]

    def weight(at: int) -> tuple[int, int, bool, bool]:
        axes = layout.raised(call.axes(at), rank)
        usual, plain = axes == layout.usual(rank), axes == layout.identity(rank)
        return int(np.prod(call.shape(at))), len(call.shape(at)), usual, plain

    return layout.raised(call.axes(max(flowing, key=weight)), rank)


def _side(call: Call, position: int, axes: Axes) -> int:
    """Return one side of an operator that broadcasts, laid out as the other."""
    data = call.constant(position)
    if data is not None:
        return _constant_side(call, position, axes)
    own, shape = call.axes(position), call.shape(position)
    lifted = layout.raised(own, len(axes))
    if lifted == axes:
        return call.read(position).index
    if len(own) == len(axes):
        return call.read(position, axes).index
    value = call.read(position, layout.identity(len(own)))
    full = (*[1] * (len(axes) - len(own)), *shape)
    raised = call.lowering.reshape(value.index, call.name(f"side_{position}"), full)
    return call.lowering.move(raised, axes, call.name(f"side_{position}/moved"))


def _constant_side(call: Call, position: int, axes: Axes) -> int:
    if call.is_int8:
        made = _as_int8(call, position)
        assert made is not None
        payload, quant = made
        return call.lowering.constant(call.node.inputs[position], _aligned(call, payload, axes), quant)
    real = call.need_constant(position, "a side").astype(np.float32)
    return call.lowering.constant(call.node.inputs[position], _aligned(call, real, axes))


def _aligned(call: Call, data: NDArray[np.generic], axes: Axes) -> NDArray[np.generic]:
    del call
    if data.size == 1:
        return data.reshape(())
    return np.ascontiguousarray(data.reshape((*[1] * (len(axes) - data.ndim), *data.shape)).transpose(axes))


def _as_int8(call: Call, position: int) -> tuple[NDArray[np.int8], Quant] | None:
    """Return a constant as the int8 tensor that it is exactly; None when it is not."""
    weight = call.source.weights.get(call.node.inputs[position])
    if weight is not None:
        return (weight.payload, Quant((float(weight.scale[0]),))) if len(weight.scale) == 1 else None
    data = call.constant(position)
    if data is None or data.size != 1 or not np.isfinite(data).all():
        return None
    number = float(data.item())
    steps = 0 if number == 0.0 else 127 if number > 0 else -127
    return np.full(data.shape, steps, np.int8), Quant((float(np.float32(abs(number) / 127)) or 1.0,))


