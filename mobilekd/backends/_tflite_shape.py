"""Operators that move values and leave them as they are: in int8 they keep the scale of their input."""

from collections.abc import Sequence

import numpy as np

from mobilekd.backends import _tflite_layout as layout
from mobilekd.backends._tflite_call import Call
from mobilekd.backends._tflite_layout import NHWC, Axes
from mobilekd.backends._tflite_model import Option, Quant
from mobilekd.errors import StageError

_FLOATS = (1, 10, 11, 16)  # TensorProto: float32, float16, float64, bfloat16


def kept_quant(call: Call) -> Quant | None:
    """Return the scale of the input, which the result of a kernel that moves values has; None in float."""
    return call.quant(0) if call.is_int8 else None


def transpose(call: Call) -> None:
    """Write Transpose: the values stay, only the names of the axes change."""
    order = call.node.integers("perm", range(len(call.shape()))[::-1])
    value = call.read()
    call.alias(value.index, layout.through_transpose(value.axes, order), quant=kept_quant(call))


def identity(call: Call) -> None:
    """Write Identity, Dropout in inference, or a Cast between floats: nothing.

    Raises:
        StageError: A Cast gives integers.
    """
    if call.node.op == "Cast" and call.node.number("to", 1) not in _FLOATS:
        raise StageError(f"Cast {call.node.name}: only casts between floats are known", code="MKD-420")
    value = call.read()
    call.alias(value.index, value.axes, quant=kept_quant(call))


def reshape(call: Call) -> None:
    """Write Reshape, Flatten, Squeeze or Unsqueeze in the layout of the input where the order of values allows it."""
    shape, result = call.shape(), call.out_shape()
    axes = layout.through_reshape(shape, call.axes(), result)
    value = call.read()
    if axes is None:
        value = call.read(0, layout.identity(len(shape)))
        axes = layout.through_reshape(shape, value.axes, result)
    assert axes is not None  # as in ONNX, values never have to move
    wanted = layout.stored(result, axes)
    if wanted == call.tensors.builder.tensors[value.index].shape:
        call.alias(value.index, axes, quant=kept_quant(call))
        return
    inputs, options = [value.index, call.tensors.shape_constant(wanted)], {"newShape": list(wanted)}
    call.finish("RESHAPE", inputs, axes, quant=kept_quant(call), options=options)


def concat(call: Call) -> None:
    """Write Concat; in int8 all inputs are first brought to the scale of the result."""
    rank = len(call.out_shape())
    axis = int(call.node.number("axis", 1)) % rank
    flowing = [at for at, name in enumerate(call.node.inputs) if not call.source.is_constant(name)]
    axes = call.axes(max(flowing, key=lambda at: int(np.prod(call.shape(at))))) if flowing else layout.identity(rank)
    quant, parts = call.sinks[0].quant, []
    for at in range(len(call.node.inputs)):
        index = call.read(at, axes).index
        if call.is_int8 and quant is not None and call.quant(at) != quant:
            index = call.tensors.requantize(index, call.name(f"part_{at}"), quant)
        parts.append(index)
    call.finish("CONCATENATION", parts, axes, options={"axis": axes.index(axis)})


def split(call: Call) -> None:
    """Write Split as one SLICE for each part."""
    axis, start = int(call.node.number("axis", 0)) % len(call.shape()), 0
    for output in range(len(call.sinks)):
        size = call.out_shape(output)[axis]
        if call.source.readers(call.node.outputs[output]):
            _slice(call, axis, start, size, output)
        start += size


def slices(call: Call) -> None:
    """Write Slice: SLICE for steps of 1, else STRIDED_SLICE."""
    shape, rank = call.shape(), len(call.shape())
    starts, ends = (call.need_constant(at, "a bound").reshape(-1) for at in (1, 2))
    along = call.constant(3) if call.has(3) else None
    steps = call.constant(4) if call.has(4) else None
    wholes = {axis: slice(None) for axis in range(rank)}
    for at in range(len(starts)):
        axis = at if along is None else int(along.reshape(-1)[at]) % rank
        step = 1 if steps is None else int(steps.reshape(-1)[at])
        wholes[axis] = slice(int(starts[at]), int(ends[at]), step)
    ranges = [range(shape[axis])[wholes[axis]] for axis in range(rank)]
    value = call.read()
    stored = [ranges[axis] for axis in value.axes]
    if all(one.step == 1 for one in stored):
        _begin_size(call, [one.start for one in stored], [len(one) for one in stored], value.axes)
        return
    masks: dict[str, Option] = {"endMask": sum(1 << at for at, one in enumerate(stored) if one.stop < 0)}
    bounds = [[one.start for one in stored], [one.stop for one in stored], [one.step for one in stored]]
    inputs = [value.index, *(call.tensors.shape_constant(bound) for bound in bounds)]
    call.finish("STRIDED_SLICE", inputs, value.axes, quant=kept_quant(call), options=masks)


def gather(call: Call) -> None:
    """Write Gather by constant indices: SLICE for a run, GATHER for anything else; one index takes the axis away."""
    axis = int(call.node.number("axis", 0)) % len(call.shape())
    indices = call.need_constant(1, "the indices")
    if indices.ndim > 1:
        raise StageError(f"Gather {call.node.name}: indices of {indices.ndim} dimensions; 1 is known", code="MKD-420")
    size, value = call.shape()[axis], call.read()
    wanted = np.where(indices < 0, indices + size, indices).reshape(-1).astype(np.int32)
    is_run = bool(np.array_equal(wanted, np.arange(len(wanted)) + wanted[0]))
    if indices.ndim == 0:
        _take_one(call, axis, int(wanted[0]))
    elif is_run:
        _slice(call, axis, int(wanted[0]), len(wanted), 0)
    else:
        places = call.tensors.constant(call.node.inputs[1], wanted)
        options = {"axis": value.axes.index(axis)}
        call.finish("GATHER", [value.index, places], value.axes, quant=kept_quant(call), options=options)


def pad(call: Call) -> None:
    """Write Pad with a constant or a reflection; in int8 a pad of 0 is the zero point."""
    mode, rank = call.node.text("mode", "constant"), len(call.shape())
    if mode not in ("constant", "reflect") or call.has(3):
        raise StageError(
            f"Pad {call.node.name}: mode {mode!r} or axes; constant and reflect of all axes are known", code="MKD-420"
        )
    amounts = call.need_constant(1, "the pads").reshape(2, rank).T
    if (amounts < 0).any():
        raise StageError(f"Pad {call.node.name}: negative pads", hint="use Slice", code="MKD-420")
    value = call.read()
    inputs = [value.index, call.tensors.constant("mobilekd/pads", amounts[list(value.axes)].astype(np.int32))]
    fill = call.constant(2)
    quant = kept_quant(call)
    if mode == "reflect":
        call.finish("MIRROR_PAD", inputs, value.axes, quant=quant, options={"mode": 0})
    elif fill is None or not fill.any():
        call.finish("PAD", inputs, value.axes, quant=quant)
    else:
        inputs.append(call.tensors.constant("mobilekd/fill", fill.reshape(()).astype(np.float32)))
        call.finish("PADV2", inputs, value.axes)


def pads_zero(call: Call) -> bool:
    """Return whether a Pad adds nothing but zeros or reflections."""
    fill = call.constant(2)
    return fill is None or not fill.any()


def expand(call: Call) -> None:
    """Write Expand or Tile as TILE."""
    shape, result = call.shape(), call.out_shape()
    axes = layout.raised(call.axes(), len(result))
    value = call.read()
    index, full = value.index, (*[1] * (len(result) - len(shape)), *shape)
    if len(full) != len(shape):
        index = call.tensors.reshape(index, call.name("raised"), layout.stored(full, axes))
    repeats = [result[axis] // full[axis] for axis in axes]
    if set(repeats) == {1}:
        call.alias(index, axes, quant=kept_quant(call))
    else:
        call.finish("TILE", [index, call.tensors.shape_constant(repeats)], axes, quant=kept_quant(call))


def resize(call: Call) -> None:
    """Write Resize of height and width."""
    node, size = call.node, layout.stored(call.out_shape(), NHWC)[1:3]
    mode, place = node.text("mode", "nearest"), node.text("coordinate_transformation_mode", "half_pixel")
    nearest = node.text("nearest_mode", "round_prefer_floor")
    is_whole = all(new % old == 0 for new, old in zip(call.out_shape()[2:], call.shape()[2:], strict=True))
    known = {
        ("linear", "half_pixel"): {"halfPixelCenters": True},
        ("linear", "pytorch_half_pixel"): {"halfPixelCenters": True},
        ("linear", "align_corners"): {"alignCorners": True},
        ("linear", "asymmetric"): {},
        ("nearest", "asymmetric"): {} if nearest == "floor" or is_whole else None,
        ("nearest", "half_pixel"): {"halfPixelCenters": True} if is_whole else None,
    }
    options = known.get((mode, place))
    if options is None:
        raise StageError(
            f"Resize {node.name}: mode {mode}, {place}, {nearest} to {list(size)} has no exact TFLite form",
            code="MKD-420",
        )
    kind = "RESIZE_NEAREST_NEIGHBOR" if mode == "nearest" else "RESIZE_BILINEAR"
    inputs = [call.read(0, NHWC).index, call.tensors.shape_constant(size)]
    call.finish(kind, inputs, NHWC, quant=kept_quant(call), options=options)


def is_nearest(call: Call) -> bool:
    """Return whether a Resize copies: RESIZE_BILINEAR is one step off for 5 % of values in int8 (LiteRT 2.3.0)."""
    return call.node.text("mode", "nearest") == "nearest"


def depth_to_space(call: Call) -> None:
    """Write DepthToSpace; for the order CRD the channels are put into the order of DCR first."""
    block, value = int(call.node.number("blocksize", 1)), call.read(0, NHWC)
    index, channels = value.index, call.shape()[1]
    if call.node.text("mode", "DCR") == "CRD":
        order = np.arange(channels, dtype=np.int32).reshape(-1, block * block).T.reshape(-1)
        places = call.tensors.constant(call.name("order"), order)
        shape = call.tensors.builder.tensors[index].shape
        index = call.emit("GATHER", [index, places], "ordered", shape, quant=kept_quant(call), options={"axis": 3})
    call.finish("DEPTH_TO_SPACE", [index], NHWC, quant=kept_quant(call), options={"blockSize": block})


def space_to_depth(call: Call) -> None:
    """Write SpaceToDepth."""
    options = {"blockSize": int(call.node.number("blocksize", 1))}
    call.finish("SPACE_TO_DEPTH", [call.read(0, NHWC).index], NHWC, quant=kept_quant(call), options=options)


def _slice(call: Call, axis: int, start: int, size: int, output: int) -> None:
    value, shape = call.read(), call.shape()
    starts = [start if one == axis else 0 for one in value.axes]
    sizes = [size if one == axis else shape[one] for one in value.axes]
    _begin_size(call, starts, sizes, value.axes, output)


def _begin_size(call: Call, starts: Sequence[int], sizes: Sequence[int], axes: Axes, output: int = 0) -> None:
    index = call.read().index
    inputs = [index, call.tensors.shape_constant(starts), call.tensors.shape_constant(sizes)]
    call.finish("SLICE", inputs, axes, quant=kept_quant(call), output=output)


def _take_one(call: Call, axis: int, place: int) -> None:
    value, shape = call.read(), call.shape()
    starts = [place if one == axis else 0 for one in value.axes]
    sizes = [1 if one == axis else shape[one] for one in value.axes]
    inputs = [value.index, call.tensors.shape_constant(starts), call.tensors.shape_constant(sizes)]
    one = call.emit("SLICE", inputs, "one", sizes, quant=kept_quant(call))
    axes = layout.without(value.axes, [axis])
    wanted = layout.stored(call.out_shape(), axes)
    inputs, options = [one, call.tensors.shape_constant(wanted)], {"newShape": list(wanted)}
    call.finish("RESHAPE", inputs, axes, quant=kept_quant(call), options=options)
