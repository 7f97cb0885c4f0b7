"""Networks with layers that an i8mm kernel of MNN gets wrong: odd numbers of pixels and of quads of channels."""

from collections.abc import Callable

import numpy as np
from onnx import ModelProto

from mobilekd import graph
from tests.backends.operators import _constant
from tests.backends.tiny import _Builder

_STEP = 1.5171 / 127
ONE_PIXEL = frozenset({"before", "logits", "second", "tested"})
"""Layers of `network` that compute one pixel."""


def network(layer: str, *, seed: int = 3) -> ModelProto:
    """Return a mean of a map of 24 channels, one of `LAYERS` on that pixel, and a linear layer of 10 classes."""
    net = _Builder(seed)
    stem = net.layer("Conv", "stem", net.rounded("image", 2.0291 / 127), (24, 3, 3, 3), pads=[1, 1, 1, 1])
    pooled = net.rounded(net.node("GlobalAveragePool", "pooled", [net.rounded(stem, 2.0291 / 127)]), 0.8117 / 127)
    made, channels = LAYERS[layer](net, pooled)
    return _classified(net, made, channels)


def chain(pixels: int, channels: int) -> ModelProto:
    """Return three convolutions on a map of as many pixels; the one in the middle, "tested", has as many channels."""
    net = _Builder(3)
    image = net.rounded("image", 2.0291 / 127)
    shape = _constant(net, "row", [1, 3, 1, 64], np.int64)
    row = net.rounded(net.node("Reshape", "rows", [image, shape]), 2.0291 / 127)
    ends = [_constant(net, name, [value], np.int64) for name, value in (("from", 0), ("to", pixels), ("on", 3))]
    cut = net.rounded(net.node("Slice", "cut", [row, *ends]), 2.0291 / 127)
    stem = net.rounded(net.layer("Conv", "stem", cut, (16, 3, 1, 1)), 2.0291 / 127)
    tested = net.rounded(net.layer("Conv", "tested", stem, (channels, 16, 1, 1)), _STEP)
    wide = net.rounded(net.layer("Conv", "wide", tested, (16, channels, 1, 1)), _STEP)
    pooled = net.rounded(net.node("GlobalAveragePool", "pooled", [wide]), 0.8117 / 127)
    return _classified(net, pooled, 16)


def _classified(net: _Builder, source: str, channels: int) -> ModelProto:
    flat = net.rounded(net.node("Flatten", "flat", [source]), 0.8117 / 127)
    net.rounded(net.layer("Gemm", "classifier", flat, (10, channels), transB=1), 0.6133 / 127, real="logits")
    return graph.snap_biases(net.model())


def _conv(width: int, clamp: str = "", **attributes: object) -> Callable[[_Builder, str], tuple[str, int]]:
    """Return a builder of a convolution of the pixel, with "Relu" or bounds as "-1 1" behind it."""

    def build(net: _Builder, source: str) -> tuple[str, int]:
        inputs = 24 // int(str(attributes.get("group", 1)))
        made = net.layer("Conv", "tested", source, (width, inputs, 1, 1), **attributes)
        if clamp == "Relu":
            made = net.node("Relu", "x", [made])
        elif clamp:
            bounds = [_constant(net, f"bound_{bound}", float(bound)) for bound in clamp.split()]
            made = net.node("Clip", "x", [made, *bounds])
        return net.rounded(made, 0.8117 / 127), width

    return build


def _linear(net: _Builder, source: str) -> tuple[str, int]:
    flat = net.rounded(net.node("Flatten", "flattened", [source]), 0.8117 / 127)
    made = net.rounded(net.layer("Gemm", "tested", flat, (20, 24), transB=1), 0.8117 / 127)
    shape = _constant(net, "to_map", [1, 20, 1, 1], np.int64)
    return net.rounded(net.node("Reshape", "x", [made, shape]), 0.8117 / 127), 20


def _shared(net: _Builder, source: str) -> tuple[str, int]:
    first = net.rounded(net.layer("Conv", "before", source, (12, 24, 1, 1)), 0.8117 / 127)
    made = net.rounded(net.layer("Conv", "tested", first, (12, 12, 1, 1)), 0.8117 / 127)
    return net.rounded(net.node("Conv", "second", [made, "tested_w"]), 0.8117 / 127), 12


def _depthwise(net: _Builder, source: str) -> tuple[str, int]:
    first = net.rounded(net.layer("Conv", "before", source, (12, 24, 1, 1)), 0.8117 / 127)
    made = net.layer("Conv", "tested", first, (12, 1, 3, 3), group=12, pads=[1, 1, 1, 1])
    return net.rounded(made, 0.8117 / 127), 12


def _residual(net: _Builder, source: str) -> tuple[str, int]:
    first = net.rounded(net.layer("Conv", "before", source, (12, 24, 1, 1)), 0.8117 / 127)
    made = net.rounded(net.layer("Conv", "tested", first, (12, 12, 1, 1)), 0.7013 / 127)
    return net.rounded(net.node("Add", "x", [made, first]), 1.0173 / 127), 12


LAYERS: dict[str, Callable[[_Builder, str], tuple[str, int]]] = {
    "conv": _conv(12),
    "conv_clipped_at_one": _conv(12, clamp="-1 1"),
    "conv_of_two_channels": _conv(2),
    "conv_relu": _conv(4, clamp="Relu"),
    "conv_relu6": _conv(36, clamp="0 6"),
    "depthwise": _depthwise,
    "grouped": _conv(24, clamp="Relu", group=2),
    "linear": _linear,
    "residual": _residual,
    "shared_weight": _shared,
}
"""Layers on one pixel, each with the number of channels it writes."""
