"""ONNX operators as small graphs: name -> steps, constants, and whether they run in int8."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tests.backends.small_graphs import Step

SHAPE = (1, 8, 6, 6)
_RNG = np.random.default_rng(3)


@dataclass(frozen=True)
class Case:
    """A graph from "image" to "logits"."""

    steps: Sequence[Step]
    constants: Mapping[str, NDArray[np.generic]] = field(default_factory=dict)
    float_ops: tuple[str, ...] = ()
    """TFLite operators that stay float in the int8 file."""
    shape: tuple[int, ...] = SHAPE
    unrounded: tuple[str, ...] = ()
    """Tensors inside a group of nodes that is rounded as one."""
    float_layers: tuple[str, ...] = ()
    """Layers that stay float, by the name of their output."""
    absent: tuple[str, ...] = ()
    """Rounded tensors that the file does not have: they are part of an operator."""


def _normal(*shape: int) -> NDArray[np.float32]:
    return _RNG.normal(0, 0.4, shape).astype(np.float32)


def _ints(*values: int) -> NDArray[np.int64]:
    return np.array(values, np.int64)


def _one(op: str, *inputs: str, **attributes: object) -> tuple[Step, ...]:
    return ((op, ("image", *inputs), attributes),)


def _two(op: str, first: str = "image", second: str = "t0", **attributes: object) -> tuple[Step, ...]:
    return (("Abs", ("image",), {}), (op, (first, second), attributes))


_C3 = {"w0": _normal(12, 8, 3, 3), "b": _normal(12)}
_TOKENS = {"shape": _ints(1, 8, 36)}
_TO_TOKENS: tuple[Step, ...] = (("Reshape", ("image", "shape"), {}), ("Transpose", ("t0",), {"perm": [0, 2, 1]}))

CASES: dict[str, Case] = {
    "Conv": Case(_one("Conv", "w0", "b", pads=[1, 1, 1, 1]), _C3),
    "Conv without bias": Case(_one("Conv", "w0"), {"w0": _normal(12, 8, 3, 3)}),
    "Conv stride 2": Case(_one("Conv", "w0", "b", pads=[1, 1, 1, 1], strides=[2, 2]), _C3),
    "Conv dilated": Case(_one("Conv", "w0", "b", pads=[2, 2, 2, 2], dilations=[2, 2]), _C3),
    "Conv of groups": Case(_one("Conv", "w0", group=4), {"w0": _normal(12, 2, 3, 3)}),
    "Conv depthwise": Case(_one("Conv", "w0", group=8, pads=[1] * 4), {"w0": _normal(8, 1, 3, 3)}),
    "Conv depthwise, large window": Case(_one("Conv", "w0", group=8, pads=[3] * 4), {"w0": _normal(8, 1, 7, 7)}),
    "Conv depthwise, two for each": Case(_one("Conv", "w0", group=8, pads=[1] * 4), {"w0": _normal(16, 1, 3, 3)}),
    "Conv auto_pad": Case(_one("Conv", "w0", "b", auto_pad="SAME_UPPER", strides=[2, 2]), _C3),
    "Conv and Relu": Case(
        (("Conv", ("image", "w0", "b"), {}), ("Relu", ("t0",), {})),
        _C3,
    ),
    "Conv and Clip": Case(
        (("Conv", ("image", "w0", "b"), {}), ("Clip", ("t0", "low", "high"), {})),
        {**_C3, "low": np.float32(-0.5), "high": np.float32(0.7)},
    ),
    "Pad and Conv": Case(
        (("Pad", ("image", "pads"), {}), ("Conv", ("t0", "w0", "b"), {"strides": [2, 2]})),
        {**_C3, "pads": _ints(0, 0, 0, 0, 0, 0, 1, 1)},
        absent=("t0",),
    ),
    "ConvTranspose": Case(
        _one("ConvTranspose", "w1", "b", strides=[2, 2]), {"w1": _normal(8, 5, 2, 2), "b": _normal(5)}
    ),
    "ConvTranspose with pads": Case(
        _one("ConvTranspose", "w1", "b", strides=[2, 2], pads=[1, 1, 1, 1], output_padding=[1, 0]),
        {"w1": _normal(8, 5, 3, 3), "b": _normal(5)},
    ),
    "Gemm": Case(
        (("Flatten", ("image",), {}), ("Gemm", ("t0", "w0", "b"), {"transB": 1})),
        {"w0": _normal(100, 288), "b": _normal(100)},
    ),
    "Gemm, weights as they are": Case(
        (("Flatten", ("image",), {}), ("Gemm", ("t0", "w1", "b"), {})), {"w1": _normal(288, 100), "b": _normal(100)}
    ),
    "MatMul of tokens by a constant": Case(
        (*_TO_TOKENS, ("MatMul", ("t1", "w1"), {})), {**_TOKENS, "w1": _normal(8, 5)}
    ),
    "MatMul of two tensors": Case(
        (*_TO_TOKENS, ("Transpose", ("t1",), {"perm": [0, 2, 1]}), ("MatMul", ("t1", "t2"), {})), _TOKENS
    ),
    "MatMul of two tensors and Relu": Case(
        (
            *_TO_TOKENS,
            ("Transpose", ("t1",), {"perm": [0, 2, 1]}),
            ("MatMul", ("t1", "t2"), {}),
            ("Relu", ("t3",), {}),
        ),
        _TOKENS,
        ("RELU",),
        float_layers=("t3",),
    ),
    "Relu": Case(_one("Relu")),
    "Clip to ReLU6": Case(_one("Clip", "low", "high"), {"low": np.float32(0), "high": np.float32(6)}),
    "Clip": Case(_one("Clip", "low", "high"), {"low": np.float32(-0.3), "high": np.float32(1.1)}),
    "LeakyRelu": Case(_one("LeakyRelu", alpha=0.13)),
    "PRelu": Case(_one("PRelu", "slope"), {"slope": _normal(8, 1, 1)}, ("NEG", "RELU", "MUL", "RELU", "SUB")),
    "Elu": Case(_one("Elu", alpha=0.7), {}, ("MINIMUM", "EXP", "SUB", "MUL", "RELU", "ADD")),
    "HardSwish": Case(_one("HardSwish"), {}, ("HARD_SWISH",)),
    "HardSigmoid": Case(_one("HardSigmoid", alpha=1 / 6, beta=0.5)),
    "HardSigmoid of ONNX": Case(_one("HardSigmoid"), {}, ("MUL", "ADD", "MAXIMUM", "MINIMUM")),
    "Sigmoid": Case(_one("Sigmoid"), {}, ("LOGISTIC",)),
    "Tanh": Case(_one("Tanh")),
    "Gelu": Case(_one("Gelu")),
    "Gelu written with Erf": Case(
        (
            ("Div", ("image", "root"), {}),
            ("Erf", ("t0",), {}),
            ("Add", ("t1", "one"), {}),
            ("Mul", ("half", "t2"), {}),
            ("Mul", ("image", "t3"), {}),
        ),
        {"root": np.float32(2**0.5), "one": np.float32(1), "half": np.float32(0.5)},
        unrounded=("t0", "t1", "t2", "t3"),
    ),
    "SiLU": Case(
        (("Sigmoid", ("image",), {}), ("Mul", ("image", "t0"), {})), {}, ("LOGISTIC", "MUL"), unrounded=("t0",)
    ),
    "MatMul of tokens and a bias": Case(
        (*_TO_TOKENS, ("MatMul", ("t1", "w1"), {}), ("Add", ("t2", "b"), {})),
        {**_TOKENS, "w1": _normal(8, 5), "b": _normal(5)},
        unrounded=("t2",),
    ),
    "Attention": Case(
        (
            ("Reshape", ("image", "heads"), {}),
            ("Transpose", ("t0",), {"perm": [0, 1, 3, 2]}),
            ("MatMul", ("t1", "t0"), {}),
            ("Softmax", ("t2",), {"axis": -1}),
            ("MatMul", ("t3", "t1"), {}),
            ("Transpose", ("t4",), {"perm": [0, 2, 1, 3]}),
            ("Reshape", ("t5", "tokens"), {}),
        ),
        {"heads": _ints(1, 2, 4, 36), "tokens": _ints(1, 36, 8)},
        ("SOFTMAX",),
    ),
    "Gelu of tanh": Case(_one("Gelu", approximate="tanh")),
    "Softplus": Case(_one("Softplus"), {}, ("ABS", "NEG", "EXP", "ADD", "RELU", "LOG", "ADD")),
    "Mish": Case(_one("Mish"), {}, ("ABS", "NEG", "EXP", "ADD", "RELU", "LOG", "ADD", "TANH", "MUL")),
    "Exp": Case(_one("Exp")),
    "Abs": Case(_one("Abs")),
    "Neg": Case(_one("Neg")),
    "Sqrt": Case((("Exp", ("image",), {}), ("Sqrt", ("t0",), {})), {}, ("SQRT",)),
    "Log": Case(
        (("Exp", ("image",), {}), ("Add", ("t0", "one"), {}), ("Log", ("t1",), {})), {"one": np.float32(1)}, ("LOG",)
    ),
    "Reciprocal": Case(
        (("Exp", ("image",), {}), ("Add", ("t0", "one"), {}), ("Reciprocal", ("t1",), {})),
        {"one": np.float32(1)},
        ("DIV",),
    ),
    "Pow 2": Case(_one("Pow", "two"), {"two": np.float32(2)}, ("MUL",)),
    "Pow 0.5": Case((("Abs", ("image",), {}), ("Pow", ("t0", "half"), {})), {"half": np.float32(0.5)}, ("SQRT",)),
    "Pow 3": Case((("Abs", ("image",), {}), ("Pow", ("t0", "three"), {})), {"three": np.float32(3)}, ("POW",)),
    "Add": Case(_two("Add")),
    "Add and Relu": Case((*_two("Add"), ("Relu", ("t1",), {}))),
    "Add of a number": Case(_one("Add", "three"), {"three": np.float32(3)}),
    "Add of a constant map": Case(_one("Add", "map"), {"map": _normal(8, 1, 1)}, ("ADD",)),
    "Add, broadcast": Case((("GlobalAveragePool", ("image",), {}), ("Add", ("image", "t0"), {})), {}, ("MEAN",)),
    "Sub": Case(_two("Sub")),
    "Sub from a number": Case((("Sub", ("one", "image"), {}),), {"one": np.float32(1)}),
    "Mul": Case(_two("Mul")),
    "Mul by a number": Case(_one("Mul", "number"), {"number": np.float32(-0.7)}),
    "Div": Case((*_two("Add", "t0", "one"), ("Div", ("image", "t1"), {})), {"one": np.float32(1)}, ("DIV",)),
    "Max": Case(_two("Max")),
    "Min": Case(_two("Min")),
    "GlobalAveragePool": Case(_one("GlobalAveragePool"), {}, ("MEAN",)),
    "GlobalMaxPool": Case(_one("GlobalMaxPool")),
    "AveragePool": Case(_one("AveragePool", kernel_shape=[2, 2], strides=[2, 2]), {}, ("AVERAGE_POOL_2D",)),
    "AveragePool, pads counted": Case(
        _one("AveragePool", kernel_shape=[3, 3], pads=[1] * 4, count_include_pad=1), {}, ("PAD", "AVERAGE_POOL_2D")
    ),
    "AveragePool, pads left out": Case(
        _one("AveragePool", kernel_shape=[3, 3], pads=[1] * 4), {}, ("AVERAGE_POOL_2D",)
    ),
    "MaxPool": Case(_one("MaxPool", kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)),
    "MaxPool, rounded up": Case(_one("MaxPool", kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1), shape=(1, 8, 7, 7)),
    "MaxPool behind Relu": Case(
        (("Relu", ("image",), {}), ("MaxPool", ("t0",), {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1] * 4}))
    ),
    "ReduceMean": Case(_one("ReduceMean", "axes", keepdims=0), {"axes": _ints(2, 3)}, ("MEAN",)),
    "ReduceSum": Case(_one("ReduceSum", "axes"), {"axes": _ints(1)}, ("SUM",)),
    "ReduceMax": Case(_one("ReduceMax", "axes", keepdims=0), {"axes": _ints(1)}),
    "Concat": Case(_two("Concat", axis=1)),
    "Concat of rows": Case(_two("Concat", axis=2)),
    "Slice": Case(_one("Slice", "starts", "ends", "axes"), {"starts": _ints(2), "ends": _ints(100), "axes": _ints(1)}),
    "Slice in steps": Case(
        _one("Slice", "starts", "ends", "axes", "steps"),
        {"starts": _ints(0, 1), "ends": _ints(6, 6), "axes": _ints(2, 3), "steps": _ints(2, 3)},
    ),
    "Slice backwards": Case(
        _one("Slice", "starts", "ends", "axes", "steps"),
        {"starts": _ints(-1), "ends": _ints(-1000), "axes": _ints(1), "steps": _ints(-1)},
    ),
    "Reshape to tokens": Case(_TO_TOKENS, _TOKENS),
    "Reshape that mixes": Case(_one("Reshape", "shape"), {"shape": _ints(1, 16, 18)}),
    "Flatten of a map": Case(_one("Flatten")),
    "Squeeze and Unsqueeze": Case(
        (
            ("GlobalMaxPool", ("image",), {}),
            ("Squeeze", ("t0", "axes"), {}),
            ("Unsqueeze", ("t1", "axes"), {}),
            ("Mul", ("image", "t2"), {}),
        ),
        {"axes": _ints(2, 3)},
    ),
    "Transpose": Case(_one("Transpose", perm=[0, 3, 1, 2])),
    "Transpose to channels last": Case(_one("Transpose", perm=[0, 2, 3, 1])),
    "Expand": Case((("GlobalMaxPool", ("image",), {}), ("Expand", ("t0", "shape"), {})), {"shape": _ints(1, 8, 3, 2)}),
    "Tile": Case(_one("Tile", "repeats"), {"repeats": _ints(1, 2, 1, 3)}),
    "Gather of channels": Case(_one("Gather", "order", axis=1), {"order": _ints(0, 4, 1, 5, 2, 6, 3, 7)}),
    "Gather of a run": Case(_one("Gather", "order", axis=1), {"order": _ints(2, 3, 4)}),
    "Gather of one": Case(_one("Gather", "place", axis=2), {"place": np.int64(-1)}),
    "Pad": Case(_one("Pad", "pads"), {"pads": _ints(0, 1, 0, 2, 0, 0, 3, 1)}),
    "Pad by reflection": Case(_one("Pad", "pads", mode="reflect"), {"pads": _ints(0, 0, 1, 2, 0, 0, 2, 1)}),
    "Pad with a number": Case(
        _one("Pad", "pads", "fill"), {"pads": _ints(0, 0, 1, 1, 0, 0, 1, 1), "fill": np.float32(0.5)}, ("PADV2",)
    ),
    "Resize nearest": Case(
        _one("Resize", "", "scales", mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor"),
        {"scales": np.array([1, 1, 2, 2], np.float32)},
    ),
    "Resize bilinear": Case(
        _one("Resize", "", "scales", mode="linear", coordinate_transformation_mode="pytorch_half_pixel"),
        {"scales": np.array([1, 1, 2, 2], np.float32)},
        ("RESIZE_BILINEAR",),
    ),
    "Resize bilinear, not rounded, then moved": Case(
        (
            ("Resize", ("image", "", "scales"), {"mode": "linear"}),
            ("MaxPool", ("t0",), {"kernel_shape": [2, 2], "strides": [2, 2]}),
        ),
        {"scales": np.array([1, 1, 2, 2], np.float32)},
        ("RESIZE_BILINEAR", "MAX_POOL_2D"),
        unrounded=("t0",),
    ),
    "Clip wider than int8 behind Conv": Case(
        (("Conv", ("image", "w0", "b"), {}), ("Clip", ("t0", "low", "high"), {})),
        {**_C3, "low": np.float32(-50), "high": np.float32(70)},
    ),
    "Resize bilinear, corners aligned": Case(
        _one("Resize", "", "", "sizes", mode="linear", coordinate_transformation_mode="align_corners"),
        {"sizes": _ints(1, 8, 9, 11)},
        ("RESIZE_BILINEAR",),
    ),
    "Softmax of channels": Case(_one("Softmax", axis=1), {}, ("SOFTMAX",)),
    "Softmax": Case(_one("Softmax", axis=-1), {}, ("SOFTMAX",)),
    "LogSoftmax": Case(_one("LogSoftmax", axis=1), {}, ("LOG_SOFTMAX",)),
    "LayerNormalization of channels last": Case(
        (("Transpose", ("image",), {"perm": [0, 2, 3, 1]}), ("LayerNormalization", ("t0", "scale", "shift"), {})),
        {"scale": _normal(8), "shift": _normal(8)},
        ("MEAN", "SUB", "MUL", "MEAN", "ADD", "RSQRT", "MUL", "MUL", "ADD"),
    ),
    "BatchNormalization": Case(
        _one("BatchNormalization", "scale", "shift", "mean", "variance"),
        {"scale": _normal(8), "shift": _normal(8), "mean": _normal(8), "variance": np.abs(_normal(8)) + 0.1},
        ("MUL", "ADD"),
    ),
    "InstanceNormalization": Case(
        _one("InstanceNormalization", "scale", "shift"),
        {"scale": _normal(8), "shift": _normal(8)},
        ("MEAN", "SUB", "MUL", "MEAN", "ADD", "RSQRT", "MUL", "MUL", "ADD"),
    ),
    "GroupNormalization": Case(
        _one("GroupNormalization", "scale", "shift", num_groups=2),
        {"scale": _normal(8), "shift": _normal(8)},
        ("RESHAPE", "MEAN", "SUB", "MUL", "MEAN", "ADD", "RSQRT", "MUL", "RESHAPE", "MUL", "ADD"),
    ),
    "GroupNormalization as PyTorch exports it": Case(
        (
            ("Reshape", ("image", "groups"), {}),
            ("InstanceNormalization", ("t0", "ones", "zeros"), {}),
            ("Reshape", ("t1", "shape"), {}),
        ),
        {
            "groups": _ints(1, 2, -1),
            "ones": np.ones(2, np.float32),
            "zeros": np.zeros(2, np.float32),
            "shape": _ints(*SHAPE),
        },
        ("RESHAPE", "MEAN", "SUB", "MUL", "MEAN", "ADD", "RSQRT", "MUL", "RESHAPE"),
        unrounded=("t0", "t1"),
    ),
    "DepthToSpace": Case(_one("DepthToSpace", blocksize=2)),
    "DepthToSpace, PyTorch's order": Case(_one("DepthToSpace", blocksize=2, mode="CRD")),
    "SpaceToDepth": Case(_one("SpaceToDepth", blocksize=2)),
    "Identity": Case((("Identity", ("image",), {}), ("Relu", ("t0",), {}))),
}
