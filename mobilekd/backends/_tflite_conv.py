"""Convolutions, linear layers and matrix products."""

import numpy as np
from numpy.typing import NDArray

from mobilekd.backends import _tflite_layout as layout
from mobilekd.backends._tflite_call import Call
from mobilekd.backends._tflite_layout import NHWC
from mobilekd.backends._tflite_model import Option, Quant
from mobilekd.backends._tflite_source import Node, Source, Weight
from mobilekd.backends._tflite_window import Window, place, window
from mobilekd.errors import StageError

_VALID = 1
# XNNPACK has int8 depthwise kernels of up to 25 taps. Larger windows go through its general convolution, channel by
# channel: 2244 us for 7x7 on 16x16x64 against 116 us of the built-in kernel (x86_64, LiteRT 2.3.0). It leaves a layer
# to the built-in kernels when its weights are no constant, so these pass through a RESHAPE that changes nothing.
_XNNPACK_TAPS = 25


def has_int8_weight(call: Call) -> bool:
    """Return whether the weights are int8, with one scale or one for each output: then the int8 kernels are exact.

    Measured in LiteRT 2.3.0 against the rounded real result: XNNPACK differs in less than 0.01 % of values, the
    built-in and the reference kernels in 0.02 to 0.7 % (they round the product twice), never by more than a step.
    """
    weight = call.source.weights.get(call.node.inputs[1])
    return weight is not None and (len(weight.scale) == 1 or weight.axis == _outputs_axis(call))


def product_is_int8(call: Call) -> bool:
    """Return whether a MatMul or Gemm can run in int8: by an int8 constant, or of two tensors that flow."""
    if call.source.is_constant(call.node.inputs[1]):
        return has_int8_weight(call) and call.constant(0) is None and len(call.shape(1)) == 2
    # BATCH_MATMUL: XNNPACK at most 0.1 %, built-in and reference 0.1 to 0.6 % of values off by one step.
    return call.constant(0) is None


def is_by_constant(source: Source, node: Node) -> bool:
    """Return whether a MatMul is by a constant matrix: FULLY_CONNECTED fuses an activation, BATCH_MATMUL does not."""
    return source.is_constant(node.inputs[1]) and len(source.shape(node.inputs[1])) == 2


def conv(call: Call) -> None:
    """Write Conv as CONV_2D or DEPTHWISE_CONV_2D, grouped ones too: all kernel sets have them exact in int8."""
    if len(call.shape(0)) != 4:
        raise StageError(
            f"Conv {call.node.name}: {len(call.shape(0))} dimensions",
            hint="only 2-D convolution is known",
            code="MKD-420",
        )
    group, channels = int(call.node.number("group", 1)), call.shape(0)[1]
    is_depthwise = group == channels and call.shape(1)[1] == 1 and group > 1
    value, frame = place(call, window(call, call.shape(1)[2:]), fill=0.0)
    order, axis = ((1, 2, 3, 0), 3) if is_depthwise else ((0, 2, 3, 1), 0)
    weight, bias = _weights(call, order, axis)
    options: dict[str, Option] = {**_strides(frame)}
    options |= {"dilationHFactor": frame.dilations[0], "dilationWFactor": frame.dilations[1]}
    if is_depthwise:
        options["depthMultiplier"] = call.shape(1)[0] // channels
        if call.is_int8 and frame.kernel[0] * frame.kernel[1] > _XNNPACK_TAPS:
            weight = call.tensors.reshape(weight, f"{call.node.inputs[1]}/flowing", call.tensors.shape_of(weight))
    call.finish("DEPTHWISE_CONV_2D" if is_depthwise else "CONV_2D", [value, weight, bias], NHWC, options=options)


def conv_transpose(call: Call) -> None:
    """Write ConvTranspose as TRANSPOSE_CONV, cut to what pads leave."""
    node = call.node
    if node.number("group", 1) != 1 or set(node.integers("dilations", (1, 1))) != {1} or len(call.shape(0)) != 4:
        raise StageError(f"ConvTranspose {node.name}: groups, dilations and 1-D are not known", code="MKD-420")
    strides, pads = node.integers("strides", (1, 1)), node.integers("pads", (0, 0, 0, 0))
    if node.text("auto_pad", "NOTSET") != "NOTSET":
        raise StageError(f"ConvTranspose {node.name}: auto_pad is not known", hint="give explicit pads", code="MKD-420")
    weight, bias = _weights(call, (1, 2, 3, 0), 0)
    result = layout.stored(call.out_shape(), NHWC)
    spans = [(call.shape(0)[at] - 1) * strides[at - 2] + call.shape(1)[at] for at in (2, 3)]
    if any(spans[at] < pads[at] + result[at + 1] for at in (0, 1)):
        raise StageError(
            f"ConvTranspose {node.name}: output_padding goes past its pads", hint="lower output_padding", code="MKD-420"
        )
    full = (result[0], *spans, result[3])
    inputs = [call.tensors.shape_constant(full), weight, call.read(0, NHWC).index, bias]
    options = {"padding": _VALID, "strideH": strides[0], "strideW": strides[1]}
    if full == result:
        call.finish("TRANSPOSE_CONV", inputs, NHWC, options=options)
        return
    quant = call.sinks[0].quant
    whole = call.emit("TRANSPOSE_CONV", inputs, "whole", full, quant=quant, options=options)
    cut = [call.tensors.shape_constant((0, *pads[:2], 0)), call.tensors.shape_constant(result)]
    call.finish("SLICE", [whole, *cut], NHWC, quant=quant)


def matmul(call: Call) -> None:
    """Write MatMul as FULLY_CONNECTED, or as BATCH_MATMUL where both sides flow."""
    if is_by_constant(call.source, call.node):
        _linear(call)
    else:
        _batch_matmul(call)


def gemm(call: Call) -> None:
    """Write Gemm by a constant as FULLY_CONNECTED."""
    node = call.node
    is_plain = node.number("alpha", 1.0) == 1.0 and node.number("beta", 1.0) == 1.0 and not node.number("transA", 0)
    if not is_plain or not call.source.is_constant(node.inputs[1]):
        raise StageError(
            f"Gemm {node.name}: only a constant weight, alpha = beta = 1 and transA = 0 are known", code="MKD-420"
        )
    _linear(call)


def _linear(call: Call) -> None:
    rank = len(call.shape(0))
    axes = call.axes(0)
    axes = axes if axes[-1] == rank - 1 else layout.last(axes, rank - 1)
    weight, bias = _weights(call, (0, 1) if _outputs_axis(call) == 0 else (1, 0), 0)
    options: dict[str, Option] = {"keepNumDims": True} if rank != 2 else {}
    call.finish("FULLY_CONNECTED", [call.read(0, axes).index, weight, bias], axes, options=options)


def _batch_matmul(call: Call) -> None:
    inputs, options, rank = [], {}, len(call.out_shape())
    for position, option in enumerate(("adjX", "adjY")):
        own = len(call.shape(position))
        plain = layout.identity(own)
        flipped = (*plain[:-2], plain[-1], plain[-2])
        options[option] = own > 1 and call.axes(position) == flipped
        inputs.append(call.read(position, flipped if options[option] else plain).index)
    call.finish("BATCH_MATMUL", inputs, layout.identity(rank), options=options)


def _strides(frame: Window) -> dict[str, Option]:
    return {"padding": frame.padding, "strideH": frame.strides[0], "strideW": frame.strides[1]}


def _outputs_axis(call: Call) -> int:
    """Return the axis of the outputs in the ONNX weight."""
    return 0 if call.node.op == "Conv" or call.node.number("transB", 0) else 1


def _weights(call: Call, order: tuple[int, ...], axis: int) -> tuple[int, int]:
    """Return weights and bias, in the order of TFLite's axes; `axis` is that of the outputs there."""
    outputs = call.shape(1)[_outputs_axis(call)]
    bias = call.need_constant(2, "the bias").reshape(-1) if call.has(2) else np.zeros(1, np.float32)
    bias = np.broadcast_to(bias, (outputs,))
    name = call.node.inputs[1]
    bias_name = call.node.inputs[2] if call.has(2) else f"{name}/no_bias"
    if call.is_int8:
        payload = call.source.weights[name]
        return _int8_weights(call, payload, order, axis), _int32_bias(call, payload, bias, bias_name)
    real = np.ascontiguousarray(call.need_constant(1, "the weight").astype(np.float32).transpose(order))
    return _float_weight(call, name, real), call.tensors.constant(bias_name, bias.astype(np.float32))


def _int8_weights(call: Call, weight: Weight, order: tuple[int, ...], axis: int) -> int:
    quant = Quant(tuple(map(float, weight.scale)), 0, axis if len(weight.scale) > 1 else 0)
    return call.tensors.constant(weight.name, np.ascontiguousarray(weight.payload.transpose(order)), quant)


def _int32_bias(call: Call, weight: Weight, bias: NDArray[np.generic], name: str) -> int:
    """Return the bias as int32 on the grid of the accumulator: input scale x weight scale."""
    grid = np.atleast_1d(np.float32(call.quant(0).scale[0]) * weight.scale)
    steps = np.rint(bias.astype(np.float64) / grid.astype(np.float64))
    if np.abs(steps).max() > np.iinfo(np.int32).max:
        raise StageError(f"the bias {name!r} does not fit int32 at its scale", hint="train longer", code="MKD-411")
    return call.tensors.constant(name, steps.astype(np.int32), Quant(tuple(map(float, grid))))


def _float_weight(call: Call, name: str, real: NDArray[np.float32]) -> int:
    if not call.tensors.half_weights:
        return call.tensors.constant(name, real)
    half = call.tensors.constant(name, real.astype(np.float16))
    return call.tensors.emit("DEQUANTIZE", [half], f"{name}_float32", real.shape, "float32")
