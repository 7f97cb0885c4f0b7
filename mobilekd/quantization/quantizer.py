"""Which tensors of a lowered graph are int8: the mobile quantizer."""

import operator
from collections.abc import Iterator

from torch import Tensor
from torch.fx import GraphModule, Node
from torchao.quantization.pt2e.quantizer import QuantizationAnnotation, Quantizer, SharedQuantizationSpec

from mobilekd.quantization.folding import OUTPUT_AXIS
from mobilekd.quantization.graph_tools import aten, constant, layer_name
from mobilekd.quantization.scheme import Scheme

WEIGHTED = frozenset(OUTPUT_AXIS)
"""Operators whose second argument is a weight with a scale for each output channel."""

_PRODUCTS = {aten.matmul.default, aten.bmm.default}
"""Products of two activations, or of an activation and a bare parameter."""

CLAMPS = {aten.relu.default, aten.relu6.default, aten.hardtanh.default, aten.clamp.default}
"""Activations that every runtime fuses into the operator before: that operator's own output is never rounded."""

_FUSES_A_CLAMP = {*WEIGHTED, aten.add.Tensor, aten.mul.Tensor}

MOVES = {
    aten.flatten.using_ints,
    aten.unflatten.int,
    aten.view.default,
    aten.reshape.default,
    aten.permute.default,
    aten.transpose.int,
    aten.squeeze.default,
    aten.squeeze.dim,
    aten.squeeze.dims,
    aten.unsqueeze.default,
    aten.expand.default,
    aten.repeat.default,
    aten.flip.default,
    aten.roll.default,
    aten.max_pool2d.default,
    aten.avg_pool2d.default,
    aten.slice.Tensor,
    aten.select.int,
    aten.narrow.default,
    aten.index_select.default,
    aten.pad.default,
    aten.constant_pad_nd.default,
    aten.pixel_shuffle.default,
    aten.pixel_unshuffle.default,
    aten.channel_shuffle.default,
    aten.upsample_nearest2d.vec,
    aten.upsample_nearest2d.default,
    aten.upsample_bilinear2d.vec,
    aten.upsample_bilinear2d.default,
    aten.contiguous.default,
    aten.clone.default,
    operator.getitem,
}
"""Operators whose int8 kernels move integers, or average a few of them: output and input share one scale."""

_SPLITS = {aten.chunk.default, aten.split.Tensor, aten.split_with_sizes.default, aten.unbind.int}
"""Operators that give several tensors; each is read through a getitem, which shares the input's scale."""

_FLOAT_CHAIN = {
    aten.layer_norm.default,
    aten.group_norm.default,
    aten.instance_norm.default,
    aten.softmax.int,
    aten.log_softmax.int,
    aten.pow.Tensor_Scalar,
    aten.sqrt.default,
    aten.rsqrt.default,
    aten.reciprocal.default,
    aten.exp.default,
    aten.log.default,
    aten.div.Tensor,
    aten.linalg_vector_norm.default,
    aten.var.correction,
    aten.sum.dim_IntList,
    aten.amax.default,
}
"""Operators that no runtime, or not all, has in int8: they compute in float between two int8 tensors, and what lies
between two of them is not rounded."""

_INT8 = {
    aten.add.Tensor,
    aten.sub.Tensor,
    aten.mul.Tensor,
    aten.hardswish.default,
    aten.hardsigmoid.default,
    aten.sigmoid.default,
    aten.tanh.default,
    aten.silu.default,
    aten.gelu.default,
    aten.elu.default,
    aten.mish.default,
    aten.leaky_relu.default,
    aten.prelu.default,
    aten.mean.dim,
    aten.adaptive_avg_pool2d.default,
    aten.cat.default,
    aten.maximum.default,
    aten.minimum.default,
    aten.neg.default,
    aten.abs.default,
}
"""Operators with an int8 form in some runtime, and an output range of their own."""

_KEY = "quantization_annotation"


class MobileQuantizer(Quantizer):  # type: ignore[misc]  # torchao ships no types
    """int8 per-channel weights, int8 per-tensor activations; one Q/DQ for each tensor that an int8 kernel writes.

    An operator that stands in no list here computes in float between int8 tensors: a new network needs no new rule.

    Attributes:
        scheme: Ranges.
        keep_float: Layers, by the name of their weight without ".weight", whose weights stay float. What they write
            is not rounded either where only such layers, float operators or the end of the graph read it.
    """

    def __init__(self, scheme: Scheme, keep_float: frozenset[str] = frozenset()) -> None:
        super().__init__()
        self._scheme = scheme
        self._keep_float = keep_float

    def annotate(self, model: GraphModule) -> GraphModule:
        """Mark, in place, which tensors are rounded and which share a scale."""
        kept = self._kept(model)
        rounded = [node for node in model.graph.nodes if _is_rounded(node, model, kept)]
        groups = _Groups(rounded)
        for node in model.graph.nodes:
            weights = self._weights(model, node)
            output = None
            if node in groups:
                first = groups.first(node)
                output = self._scheme.activation() if first is node else SharedQuantizationSpec(first)
            if weights or output is not None:
                node.meta[_KEY] = QuantizationAnnotation(input_qspec_map=weights, output_qspec=output, _annotated=True)
        return model

    def validate(self, model: GraphModule) -> None:
        """Nothing to add: every annotation above is one that the backends take."""

    def _kept(self, model: GraphModule) -> set[Node]:
        """Return the layers kept in float, with the clamps and moves behind them."""
        kept: set[Node] = set()
        for node in model.graph.nodes:
            if node.target in WEIGHTED and constant(model, node.args[1]) is not None:
                is_kept = layer_name(node.args[1]) in self._keep_float
            else:
                is_kept = node.target in CLAMPS | MOVES and node.args[0] in kept
            if is_kept:
                kept.add(node)
        return kept

    def _weights(self, model: GraphModule, node: Node) -> dict[Node, object]:
        if node.target in WEIGHTED and constant(model, node.args[1]) is not None:
            weight = node.args[1]
            assert isinstance(weight, Node)
            if layer_name(weight) in self._keep_float:
                return {}
            return {weight: self._scheme.weight(channel_axis=OUTPUT_AXIS[node.target])}
        if node.target in _PRODUCTS:
            return {one: self._scheme.activation() for one in node.args[:2] if constant(model, one) is not None}  # type: ignore[misc]
        return {}


class _Groups:
    """Tensors that must share one scale, as sets that grow together; the first in graph order stands for all."""

    def __init__(self, rounded: list[Node]) -> None:
        self._order = {node: index for index, node in enumerate(rounded)}
        self._parent = {node: node for node in rounded}
        for node in rounded:
            for other in _shares_with(node):
                if other in self._order:
                    self._join(node, other)

    def __contains__(self, node: Node) -> bool:
        return node in self._order

    def first(self, node: Node) -> Node:
        while self._parent[node] is not node:
            node = self._parent[node]
        return node

    def _join(self, one: Node, other: Node) -> None:
        first, second = sorted((self.first(one), self.first(other)), key=self._order.__getitem__)
        self._parent[second] = first


def _shares_with(node: Node) -> Iterator[Node]:
    """Yield the tensors whose scale a tensor must share."""
    if node.target is aten.cat.default:
        # Concatenation copies integers in TFLite and MNN: all that goes in must have the scale of what comes out.
        yield from (one for one in node.args[0] if isinstance(one, Node))  # type: ignore[union-attr]
    elif node.target in MOVES:
        source = node.args[0]
        if isinstance(source, Node) and source.target in _SPLITS:
            source = source.args[0]
        if isinstance(source, Node):
            yield source


def _is_rounded(node: Node, model: GraphModule, kept: set[Node]) -> bool:
    """Return whether a tensor is int8: every real tensor that flows, but inside a float chain and before a clamp."""
    value = node.meta.get("val")
    if not isinstance(value, Tensor) or not value.is_floating_point() or not node.users:
        return False
    if node.op == "placeholder":
        return True
    if node.op != "call_function" or _reads_constants_only(node, model) or _is_fused_into_a_clamp(node):
        return False
    is_kept = node in kept
    reads_float = (_is_float(one) or one in kept or (is_kept and one.op == "output") for one in node.users)
    return not ((is_kept or _is_float(node)) and all(reads_float))


def _is_float(node: Node) -> bool:
    if node.target in _FLOAT_CHAIN:
        return True
    known = MOVES | _SPLITS | WEIGHTED | _PRODUCTS | CLAMPS | _INT8
    return node.op == "call_function" and node.target not in known


def _reads_constants_only(node: Node, model: GraphModule) -> bool:
    sources = node.all_input_nodes
    return bool(sources) and all(constant(model, one) is not None for one in sources)


def _is_fused_into_a_clamp(node: Node) -> bool:
    users = list(node.users)
    return node.target in _FUSES_A_CLAMP and len(users) == 1 and users[0].target in CLAMPS
