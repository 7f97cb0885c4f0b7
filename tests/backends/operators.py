"""Small QDQ networks around one operator each: convolution, the operator under test, convolution, mean, linear.

Scales are in no simple ratio to each other, so that sums and products are never halfway between two steps: runtimes
round such ties differently.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from mobilekd import graph
from tests.backends.tiny import CLASSES, _Builder

Operator = Callable[[_Builder, str], str]
_CHANNELS = 8


def network(operator: str, *, seed: int = 3) -> ModelProto:
    """Return the network around one of `OPERATORS`; the tensor behind it is called "x"."""
    net = _Builder(seed)
    stem = net.layer("Conv", "stem", net.rounded("image", 2.0291 / 127), (_CHANNELS, 3, 3, 3), pads=[1, 1, 1, 1])
    tested = {**OPERATORS, **FLOAT_IN_SOME}[operator](net, net.rounded(stem, 2.0291 / 127))
    channels = _WRITTEN_CHANNELS.get(operator, _CHANNELS)
    wide = net.rounded(net.layer("Conv", "wide", tested, (16, channels, 1, 1)), 1.5171 / 127)
    pooled = net.rounded(net.node("GlobalAveragePool", "pooled", [wide]), 0.8117 / 127)
    flat = net.rounded(net.node("Flatten", "flat", [pooled]), 0.8117 / 127)
    net.rounded(net.layer("Gemm", "classifier", flat, (CLASSES, 16), transB=1), 0.6133 / 127, real="logits")
    return graph.snap_biases(net.model())


def _constant(net: _Builder, name: str, value: object, dtype: type[np.generic] = np.float32) -> str:
    net.constants[name] = np.asarray(value, dtype)
    return name


def _one(op: str, scale: float = 2.0291 / 127, **attributes: object) -> Operator:
    """Return a builder of one operator with one input."""
    return lambda net, source: net.rounded(net.node(op, "x", [source], **attributes), scale)


def _with(op: str, value: NDArray[np.generic], scale: float = 2.0291 / 127, **attributes: object) -> Operator:
    """Return a builder of one operator of a tensor and a constant."""

    def build(net: _Builder, source: str) -> str:
        constant = _constant(net, "constant", value, value.dtype.type)
        return net.rounded(net.node(op, "x", [source, constant], **attributes), scale)

    return build


def _layer(
    op: str, shape: tuple[int, ...], clamp: str = "", scale: float = 1.5171 / 127, **attributes: object
) -> Operator:
    """Return a builder of one layer, with "Relu" or bounds as "-1 1" behind it."""

    def build(net: _Builder, source: str) -> str:
        made = net.layer(op, "tested", source, shape, **attributes)
        if clamp == "Relu":
            made = net.node("Relu", "x", [made])
        elif clamp:
            bounds = [_constant(net, f"bound_{bound}", float(bound)) for bound in clamp.split()]
            made = net.node("Clip", "x", [made, *bounds])
        return net.rounded(made, scale)

    return build


def _pointwise(net: _Builder, source: str, scale: float = 1.0173 / 127) -> str:
    return net.rounded(net.layer("Conv", "branch", source, (_CHANNELS, _CHANNELS, 1, 1)), scale)


def _two(op: str, *, branch_scale: float = 1.0173 / 127, clamp: str = "", **attributes: object) -> Operator:
    """Return a builder of one operator of two int8 tensors."""

    def build(net: _Builder, source: str) -> str:
        branch = _pointwise(net, source, branch_scale)
        made = net.node(op, "sum" if clamp else "x", [branch, source], **attributes)
        return net.rounded(net.node(clamp, "x", [made]) if clamp else made, 2.0291 / 127)

    return build


def _squeeze_excite(gate: str, **attributes: object) -> Operator:
    """Return a builder of squeeze-excite behind a hard-swish: a float tensor with a float and an int8 reader."""

    def build(net: _Builder, source: str) -> str:
        active = net.rounded(net.node("HardSwish", "active", [source]), 1.5171 / 127)
        mean = net.rounded(net.node("GlobalAveragePool", "squeezed", [active]), 0.8117 / 127)
        reduced = net.node("Relu", "reduced_act", [net.layer("Conv", "reduced", mean, (4, _CHANNELS, 1, 1))])
        expanded = net.layer("Conv", "expanded", net.rounded(reduced, 0.8117 / 127), (_CHANNELS, 4, 1, 1))
        gated = net.rounded(net.node(gate, "gate", [net.rounded(expanded, 1.0173 / 127)], **attributes), 1.0173 / 127)
        return net.rounded(net.node("Mul", "x", [active, gated]), 1.5171 / 127)

    return build


def _silu(net: _Builder, source: str) -> str:
    sigmoid = net.node("Sigmoid", "sigmoid", [source])
    return net.rounded(net.node("Mul", "x", [source, sigmoid]), 1.5171 / 127)


def _tokens(net: _Builder, source: str) -> str:
    """Layer norm, a linear layer on rows, SiLU behind a reshape, and back to a map."""
    rows = net.rounded(net.node("Transpose", "moved", [source], perm=[0, 2, 3, 1]), 2.0291 / 127)
    parts = [
        _constant(net, name, np.linspace(low, high, _CHANNELS)) for name, low, high in (("g", 0.5, 1), ("b", 0, 1))
    ]
    normed = net.rounded(net.node("LayerNormalization", "normed", [rows, *parts], axis=-1), 2.513 / 127)
    flat = net.node("Reshape", "rows", [normed, _constant(net, "to_rows", [64, _CHANNELS], np.int64)])
    linear = net.rounded(
        net.layer("Gemm", "linear", net.rounded(flat, 2.513 / 127), (_CHANNELS, _CHANNELS), transB=1), 1.5171 / 127
    )
    shaped = net.node("Reshape", "shaped", [linear, _constant(net, "to_map", [1, 8, 8, _CHANNELS], np.int64)])
    active = _silu(net, net.rounded(shaped, 1.5171 / 127))
    return net.rounded(net.node("Transpose", "back", [active], perm=[0, 3, 1, 2]), 1.5171 / 127)


def _attention(net: _Builder, source: str) -> str:
    """A product of two activations, softmax, and the product with the values."""
    shape = _constant(net, "to_tokens", [1, _CHANNELS, 64], np.int64)
    tokens = net.rounded(net.node("Reshape", "tokens", [source, shape]), 2.0291 / 127)
    turned = net.rounded(net.node("Transpose", "turned", [tokens], perm=[0, 2, 1]), 2.0291 / 127)
    scores = net.rounded(net.node("MatMul", "scores", [tokens, turned]), 41.3 / 127)
    weights = net.rounded(net.node("Softmax", "weights", [scores], axis=-1), 1.0173 / 127)
    mixed = net.rounded(net.node("MatMul", "mixed", [weights, tokens]), 2.0291 / 127)
    return net.rounded(
        net.node("Reshape", "x", [mixed, _constant(net, "to_map", [1, _CHANNELS, 8, 8], np.int64)]), 2.0291 / 127
    )


def _shared_weight(net: _Builder, source: str) -> str:
    """Five layers in a row with one weight."""
    made = net.rounded(net.layer("Conv", "tested", source, (_CHANNELS, _CHANNELS, 1, 1)), 1.0173 / 127)
    for name in ("second", "third", "fourth", "x"):
        made = net.rounded(net.node("Conv", name, [made, "tested_w"]), 1.0173 / 127)
    return made


def _large_linear(net: _Builder, source: str) -> str:
    """A linear layer of 65536 weights, and back to a map."""
    flat = net.rounded(net.node("Flatten", "flattened", [source]), 2.0291 / 127)
    wide = net.rounded(net.layer("Gemm", "tested", flat, (128, 512), transB=1), 1.5171 / 127)
    return net.rounded(
        net.node("Reshape", "x", [wide, _constant(net, "to_map", [1, _CHANNELS, 4, 4], np.int64)]), 1.5171 / 127
    )


def _pad_behind_a_second_rounding(net: _Builder, source: str) -> str:
    again = net.rounded(net.node("Identity", "again", [source]), 1.7 / 127)
    return net.rounded(
        net.node("Pad", "x", [again, _constant(net, "pads", [0, 0, 0, 0, 0, 0, 1, 1], np.int64)]), 1.7 / 127
    )


OPERATORS: dict[str, Operator] = {
    "add": _two("Add"),
    "add_relu": _two("Add", clamp="Relu"),
    "add_constant_by_channel": _with("Add", np.linspace(-1, 1, 8, dtype=np.float32).reshape(1, 8, 1, 1), 2.5371 / 127),
    "attention": _attention,
    "average_pool_of_one_scale": _one("AveragePool", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1),
    "average_pool_without_pads": _one(
        "AveragePool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], count_include_pad=0
    ),
    "concat": _two("Concat", branch_scale=2.0291 / 127, axis=1),
    "concat_of_two_scales": _two("Concat", axis=1),
    "conv_clipped_at_one": _layer("Conv", (8, 8, 1, 1), clamp="-1 1"),
    "conv_dilated": _layer("Conv", (8, 8, 3, 3), pads=[2, 2, 2, 2], dilations=[2, 2]),
    "conv_grouped": _layer("Conv", (8, 2, 3, 3), clamp="Relu", pads=[1, 1, 1, 1], group=4),
    "conv_of_a_shared_weight": _shared_weight,
    "conv_relu6": _layer("Conv", (8, 8, 1, 1), clamp="0 6"),
    "depthwise_with_small_steps": _layer("Conv", (8, 1, 3, 3), scale=0.0517 / 127, pads=[1, 1, 1, 1], group=8),
    "depthwise_1x1": _layer("Conv", (8, 1, 1, 1), group=8),
    "depthwise_5x5": _layer("Conv", (8, 1, 5, 5), pads=[2, 2, 2, 2], strides=[2, 2], group=8),
    "depthwise_of_two_each": _layer("Conv", (16, 1, 3, 3), pads=[1, 1, 1, 1], group=8),
    "gather": _with("Gather", np.array([0, 4, 1, 5, 2, 6, 3, 7], np.int64), axis=1),
    "hard_swish": _one("HardSwish", 1.5171 / 127),
    "linear_of_many_weights": _large_linear,
    "max_pool_of_negative_values": _one("MaxPool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
    "multiply_by_constant": _with("Mul", np.array(0.3713, np.float32), 0.8117 / 127),
    "pad_behind_a_second_rounding": _pad_behind_a_second_rounding,
    "relu_with_a_scale_of_its_own": _one("Relu", 1.7 / 127),
    "second_rounding": _one("Identity", 1.7 / 127),
    "silu": _silu,
    "softmax": _one("Softmax", 1.0173 / 127, axis=1),
    "squeeze_excite_hard_sigmoid": _squeeze_excite("HardSigmoid", alpha=1 / 6, beta=0.5),
    "squeeze_excite_sigmoid": _squeeze_excite("Sigmoid"),
    "subtract": _two("Sub"),
    "tokens": _tokens,
}
FLOAT_IN_SOME: dict[str, Operator] = {"conv_transposed": _layer("ConvTranspose", (8, 8, 2, 2), strides=[2, 2])}
"""Layers that a runtime has no int8 kernel for."""
TIES = ("average_pool_of_one_scale", "average_pool_without_pads")
"""Means of a few integers on their own scale: often halfway between two steps."""
_WRITTEN_CHANNELS = {"concat": 16, "concat_of_two_scales": 16, "depthwise_of_two_each": 16}
