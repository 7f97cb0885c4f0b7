"""Passes that write an operator with others that all runtimes have in int8 and round alike."""

import math

import torch
from torch.fx import GraphModule, Node

from mobilekd.quantization.folding import Layer, depthwise
from mobilekd.quantization.graph_tools import (
    add_constant,
    argument,
    aten,
    call,
    integers,
    pair,
    rank,
    replace,
    shape,
    source,
)

_LARGEST_POOL = 25


def write_out_attention(model: GraphModule) -> None:
    """Write scaled dot-product attention as its products and softmax, so that each product can be int8."""
    for node in list(model.graph.nodes):
        if node.target is not aten.scaled_dot_product_attention.default:
            continue
        query, key, value = node.args[:3]
        mask, is_causal = argument(node, 3, None), argument(node, 5, default=False)
        if is_causal or rank(query) < 3:
            continue
        scale = argument(node, 6, None)
        factor = 1 / math.sqrt(shape(query)[-1]) if scale is None else scale
        scaled = call(model, node, aten.mul.Tensor, (query, factor))
        turned = call(model, node, aten.transpose.int, (key, -2, -1))
        scores = call(model, node, aten.matmul.default, (scaled, turned))
        if mask is not None:
            scores = call(model, node, aten.add.Tensor, (scores, mask))
        weights = call(model, node, aten.softmax.int, (scores, -1))
        replace(node, call(model, node, aten.matmul.default, (weights, value)))


def flatten_linears(model: GraphModule) -> None:
    """Write a linear layer on tokens [batch, ..., channels] as one on rows [n, channels].

    ONNX writes the first as MatMul with a transposed weight and an Add, which no runtime reads as one int8 layer; the
    second is a Gemm with its bias.
    """
    for node in list(model.graph.nodes):
        if node.target is not aten.linear.default or rank(node) < 3:
            continue
        tokens, *rest = node.args
        rows = call(model, node, aten.reshape.default, (tokens, [-1, shape(tokens)[-1]]))
        linear = call(model, node, aten.linear.default, (rows, *rest))
        replace(node, call(model, node, aten.reshape.default, (linear, [-1, *shape(node)])))


def unify_means(model: GraphModule) -> None:
    """Write every mean over a whole map as one operator that keeps the dimensions, which runtimes pool in NHWC."""
    for node in list(model.graph.nodes):
        if rank(node.args[0] if node.args else None) != 4:
            continue
        features = source(node)
        size = shape(features)[1:]
        if node.target is aten.adaptive_avg_pool2d.default:
            if pair(node.args[1]) == size:
                replace(node, features)
            elif pair(node.args[1]) == (1, 1):
                replace(node, call(model, node, aten.mean.dim, (features, [2, 3], True)))
            elif not any(whole % part for whole, part in zip(size, pair(node.args[1]), strict=True)):
                window = [whole // part for whole, part in zip(size, pair(node.args[1]), strict=True)]
                replace(node, call(model, node, aten.avg_pool2d.default, (features, window, window)))
        elif node.target is aten.mean.dim and sorted(axis % 4 for axis in integers(node.args[1])) == [2, 3]:
            # The mean of one pixel is that pixel: nothing to round again.
            kept = features if size == (1, 1) else call(model, node, aten.mean.dim, (features, [2, 3], True))
            if argument(node, 2, default=False):
                replace(node, kept)
            else:
                replace(node, call(model, node, aten.flatten.using_ints, (kept, 1)))


def shuffle_by_gather(model: GraphModule) -> None:
    """Write a channel shuffle (reshape to groups, swap, reshape back) as one gather of channels.

    The five-dimensional transpose between has no NHWC form without a TRANSPOSE.
    """
    for node in list(model.graph.nodes):
        if node.target is not aten.reshape.default or not _swaps_groups(source(node)):
            continue
        split = source(source(node))
        if split.target is not aten.reshape.default:
            continue
        features, (groups, inner) = source(split), shape(split)[:2]
        if rank(features) != 4 or shape(node) != shape(features) or groups * inner != shape(features)[0]:
            continue
        order = torch.arange(groups * inner).reshape(groups, inner).t().reshape(-1)
        indices = add_constant(model, node, f"constants.{node.name}_order", order)
        replace(node, call(model, node, aten.index_select.default, (features, 1, indices)))


def _swaps_groups(node: Node) -> bool:
    if rank(node) != 5:
        return False
    if node.target is aten.transpose.int:
        return sorted(axis % 5 for axis in integers(node.args[1:3])) == [1, 2]
    return node.target is aten.permute.default and integers(node.args[1]) == [0, 2, 1, 3, 4]


def pool_by_convolution(model: GraphModule) -> None:
    """Write average pooling over windows of one size as a depthwise convolution with equal weights.

    Pooling kernels share one scale between input and output, and the mean of four integers is a tie in a quarter of
    all cases: TFLite rounds it away from zero, ONNX Runtime to even, MNN 3.6.1 cuts it off. A convolution has one
    rule everywhere, and an output scale of its own.
    """
    for node in list(model.graph.nodes):
        if node.target is not aten.avg_pool2d.default or rank(node) != 4:
            continue
        features = source(node)
        kernel = pair(node.args[1])
        stride, padding = pair(argument(node, 2, []), kernel), pair(argument(node, 3, 0))
        counts_padding = bool(argument(node, 5, default=True)) or padding == (0, 0)
        channels, *size = shape(features)
        is_small = kernel[0] * kernel[1] <= _LARGEST_POOL  # XNNPACK has no fast depthwise kernel for larger ones
        is_plain = is_small and counts_padding and argument(node, 6, None) is None
        if not is_plain or not _windows_fit(node, size, kernel, stride, padding):
            continue
        weight = torch.full((channels, 1, *kernel), 1 / (kernel[0] * kernel[1]))
        name, zeros = f"constants.{node.name}", torch.zeros(channels)
        pooled = depthwise(model, node, features, Layer(name, weight, zeros), is_trained=False)
        pooled.args = (*pooled.args[:3], list(stride), list(padding), [1, 1], channels)
        pooled.meta["val"] = node.meta["val"]
        replace(node, pooled)


def _windows_fit(
    node: Node, size: list[int], kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int]
) -> bool:
    """Return False where ceil_mode adds a window that hangs over the edge."""
    whole = [(one + 2 * pad - k) // step + 1 for one, k, step, pad in zip(size, kernel, stride, padding, strict=True)]
    return tuple(whole) == shape(node)[1:]
