"""Operators that work value by value."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mobilekd.backends import _tflite_layout as layout
from mobilekd.backends._tflite_call import Call
from mobilekd.backends._tflite_layout import Axes
from mobilekd.backends._tflite_model import Quant
from mobilekd.backends._tflite_tensors import Value
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
    """Write Max or Min of two sides; the int8 kernels keep one scale, so both are brought to that of the result."""
    if len(call.node.inputs) != 2:
        raise StageError(
            f"{call.node.op} {call.node.name}: {len(call.node.inputs)} inputs; 2 are known", code="MKD-420"
        )
    axes = _common_axes(call)
    sides = [_side(call, position, axes) for position in range(2)]
    if call.is_int8:
        quant = call.sinks[0].quant
        assert quant is not None
        sides = [
            side if call.quant(at) == quant else call.tensors.requantize(side, call.name(f"side_{at}"), quant)
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
    call.finish("DIV", [number(call, 1.0), value.index], value.axes)


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


def erf(call: Call) -> None:
    """Refuse Erf outside GELU.

    Raises:
        StageError: Always: TFLite has no operator for it.
    """
    raise StageError(
        f"Erf {call.node.name} is no part of a GELU; TFLite has no operator for it", hint="use GELU", code="MKD-420"
    )


def affine(call: Call) -> None:
    """Write BatchNormalization in inference as a product and a sum."""
    scale, bias, mean, variance = (call.need_constant(at, "a parameter").astype(np.float64) for at in range(1, 5))
    factor = scale / np.sqrt(variance + call.node.number("epsilon", 1e-5))
    shape = [1, -1] + [1] * (len(call.shape()) - 2)
    value = call.read()
    sides = [aligned(one.reshape(shape).astype(np.float32), value.axes) for one in (factor, bias - mean * factor)]
    product, total = (call.tensors.constant(f"{call.node.name}/{at}", one) for at, one in enumerate(sides))
    call.finish("ADD", [float_op(call, "MUL", [value.index, product], "scaled", value), total], value.axes)


def float_op(call: Call, kind: str, inputs: Sequence[int], part: str, like: Value) -> int:
    """Add an operator whose result is as large as a tensor."""
    return call.emit(kind, inputs, part, call.tensors.builder.tensors[like.index].shape)


def number_as_int8(call: Call, value: float) -> int:
    """Return a number as 127 steps of its 127th part, which is exact: the kernels multiply by the scale in float32."""
    payload, quant = _number_steps(value)
    return call.tensors.constant(f"mobilekd/{value:g}", np.array(payload, np.int8), quant)


def number(call: Call, value: float) -> int:
    """Return a constant of one value."""
    return call.tensors.constant(f"mobilekd/{value:g}", np.array(value, np.float32))


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
    raised = call.tensors.reshape(value.index, call.name(f"side_{position}"), full)
    return call.tensors.move(raised, axes, call.name(f"side_{position}/moved"))


def _constant_side(call: Call, position: int, axes: Axes) -> int:
    if call.is_int8:
        made = _as_int8(call, position)
        assert made is not None
        payload, quant = made
        return call.tensors.constant(call.node.inputs[position], aligned(payload, axes), quant)
    real = call.need_constant(position, "a side").astype(np.float32)
    return call.tensors.constant(call.node.inputs[position], aligned(real, axes))


def aligned(data: NDArray[np.generic], axes: Axes) -> NDArray[np.generic]:
    """Return a constant that broadcasts with a tensor, laid out as that."""
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
    payload, quant = _number_steps(float(data.item()))
    return np.full(data.shape, payload, np.int8), quant


def _number_steps(value: float) -> tuple[int, Quant]:
    return int(np.sign(value)) * 127, Quant((float(np.float32(abs(value) / 127)) or 1.0,))
