"""Which tensors of an exported graph are int8: the mobile quantizer."""

from collections.abc import Callable

import torch
from torch.fx import GraphModule, Node
from torchao.quantization.pt2e.quantizer import QuantizationAnnotation, Quantizer, SharedQuantizationSpec

from mobilekd.quantization.scheme import Scheme

_aten = torch.ops.aten

WEIGHTED = {
    _aten.conv1d.default,
    _aten.conv2d.default,
    _aten.linear.default,
}
"""Operators whose second argument is a weight with output channels on axis 0."""

_CLAMPS = {_aten.relu.default, _aten.hardtanh.default, _aten.relu6.default, _aten.clamp.default}
"""Activations that every runtime fuses into the operator before: that operator's own output is never rounded."""

_SAME_RANGE = {
    _aten.flatten.using_ints,
    _aten.view.default,
    _aten.reshape.default,
    _aten.permute.default,
    _aten.transpose.int,
    _aten.squeeze.dims,
    _aten.unsqueeze.default,
    _aten.max_pool2d.default,
    _aten.avg_pool2d.default,
    _aten.slice.Tensor,
    _aten.constant_pad_nd.default,
    _aten.pad.default,
    _aten.contiguous.default,
    _aten.clone.default,
    _aten.chunk.default,
    _aten.split.Tensor,
}
"""Operators whose int8 kernels move integers: output and input share one scale."""

_OWN_RANGE = {
    *WEIGHTED,
    *_CLAMPS,
    _aten.add.Tensor,
    _aten.sub.Tensor,
    _aten.mul.Tensor,
    _aten.hardswish.default,
    _aten.hardsigmoid.default,
    _aten.sigmoid.default,
    _aten.silu.default,
    _aten.gelu.default,
    _aten.mean.dim,
    _aten.adaptive_avg_pool2d.default,
    _aten.matmul.default,
    _aten.cat.default,
}

_FUSES_A_CLAMP = {*WEIGHTED, _aten.add.Tensor, _aten.mul.Tensor}

_KEY = "quantization_annotation"


class MobileQuantizer(Quantizer):  # type: ignore[misc]  # torchao ships no types
    """int8 per-channel weights, int8 per-tensor activations; one Q/DQ for each tensor that an int8 kernel writes."""

    def __init__(self, scheme: Scheme) -> None:
        super().__init__()
        self._scheme = scheme

    def annotate(self, model: GraphModule) -> GraphModule:
        """Mark, in place, which tensors are rounded and which share a scale."""
        for node in model.graph.nodes:
            if _is_image(node):
                node.meta[_KEY] = QuantizationAnnotation(output_qspec=self._scheme.activation(), _annotated=True)
            elif node.op == "call_function":
                self._annotate_operator(node)
        return model

    def validate(self, model: GraphModule) -> None:
        """Nothing to add: every annotation above is one that the backends take."""

    def _annotate_operator(self, node: Node) -> None:
        weights = {node.args[1]: self._scheme.weight(channel_axis=0)} if node.target in WEIGHTED else {}
        if node.target in _SAME_RANGE and _is_quantized(_source(node)):
            output = SharedQuantizationSpec(_source(node))
        elif node.target in _OWN_RANGE and not _is_fused_into_a_clamp(node):
            output = self._scheme.activation()
        else:
            output = None
        if weights or output is not None:
            node.meta[_KEY] = QuantizationAnnotation(input_qspec_map=weights, output_qspec=output, _annotated=True)


def _is_image(node: Node) -> bool:
    return node.op == "placeholder" and isinstance(node.meta.get("val"), torch.Tensor) and bool(node.users)


def _source(node: Node) -> Node:
    source = node.args[0]
    assert isinstance(source, Node)
    return source


def _is_quantized(node: Node) -> bool:
    annotation = node.meta.get(_KEY)
    return annotation is not None and annotation.output_qspec is not None


def _is_fused_into_a_clamp(node: Node) -> bool:
    users: list[Node] = list(node.users)
    return node.target in _FUSES_A_CLAMP and len(users) == 1 and users[0].target in _CLAMPS


_OUT_OF_PLACE: dict[Callable[..., object], Callable[..., object]] = {
    _aten.relu_.default: _aten.relu.default,
    _aten.hardtanh_.default: _aten.hardtanh.default,
    _aten.hardswish_.default: _aten.hardswish.default,
    _aten.silu_.default: _aten.silu.default,
    _aten.add_.Tensor: _aten.add.Tensor,
    _aten.mul_.Tensor: _aten.mul.Tensor,
}


def without_in_place(model: GraphModule) -> GraphModule:
    """Return the graph with in-place operators replaced: an in-place ReLU would clamp a tensor before its rounding."""
    for node in model.graph.nodes:
        if node.target in _OUT_OF_PLACE:
            node.target = _OUT_OF_PLACE[node.target]
    model.recompile()
    return model
