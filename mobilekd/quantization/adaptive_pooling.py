"""Adaptive average pooling folded into the layer that reads all of its output, as in VGG on small images."""

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from mobilekd.quantization.folding import set_layer
from mobilekd.quantization.graph_tools import argument, aten, constant, pair, rank, replace, shape, source


def fold_adaptive_pools(model: GraphModule) -> None:
    """Fold a pool to a fixed size into the convolution over the whole of it, or into the linear layer behind it.

    Both are linear, so one layer on the unpooled map computes the same. VGG's first wide layer wants a map of 7 x 7;
    an image of 32 px leaves one of 1 x 1, which the pool would only repeat, with indices that no runtime has in int8.
    """
    for node in list(model.graph.nodes):
        if node.target is not aten.adaptive_avg_pool2d.default or rank(node) != 4 or len(node.users) != 1:
            continue
        size, wanted = shape(source(node))[1:], pair(node.args[1])
        layer, flatten = _reader(node)
        weight, bias = (constant(model, argument(layer, at, None)) for at in (1, 2))
        if weight is None or not _reads_all(layer, flatten, wanted, shape(node)[0]):
            continue
        channels = shape(node)[0]
        filters = weight.reshape(len(weight), channels, *wanted)
        rows, columns = (_bins(one, other) for one, other in zip(size, wanted, strict=True))
        merged = torch.einsum("ocij,iy,jx->ocyx", filters, rows, columns)
        merged = merged if flatten is None else merged.reshape(len(weight), -1)
        set_layer(model, layer, merged, torch.zeros(len(weight)) if bias is None else bias)
        replace(node, source(node))


def _reader(pool: Node) -> tuple[Node, Node | None]:
    """Return the layer behind a pool, and the flatten between them."""
    reader = next(iter(pool.users))
    is_flat = reader.target in (aten.flatten.using_ints, aten.reshape.default) and len(reader.users) == 1
    return (next(iter(reader.users)), reader) if is_flat else (reader, None)


def _reads_all(layer: Node, flatten: Node | None, wanted: tuple[int, int], channels: int) -> bool:
    if flatten is not None:
        whole = (channels * wanted[0] * wanted[1],)
        return (
            flatten.target is aten.flatten.using_ints
            and shape(flatten) == whole
            and layer.target is aten.linear.default
        )
    if layer.target is not aten.conv2d.default or argument(layer, 6, 1) != 1:
        return False
    is_plain = pair(argument(layer, 4, 0)) == (0, 0) and pair(argument(layer, 5, 1)) == (1, 1)
    return is_plain and shape(layer)[1:] == (1, 1) and layer.args[1].meta["val"].shape[2:] == wanted  # type: ignore[union-attr]


def _bins(size: int, wanted: int) -> Tensor:
    """Return the matrix [wanted, size] of an adaptive mean: output i covers floor(i n / m) to ceil((i + 1) n / m)."""
    matrix = torch.zeros(wanted, size)
    for at in range(wanted):
        first, last = at * size // wanted, -(-(at + 1) * size // wanted)
        matrix[at, first:last] = 1 / (last - first)
    return matrix
