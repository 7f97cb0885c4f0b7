"""qdq.onnx as a torch program, for the runtimes that read nothing else: ExecuTorch and Core ML.

Each Q/DQ node becomes quantize and dequantize of `quantized_decomposed` with the very numbers of the ONNX file, weights
stay int8 constants, and every operator is written by one rule of `_torch_rules`. So these two are built from what all
others are built from: the one graph that the quantization table was read from.
"""

import functools
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torchao.quantization.pt2e  # noqa: F401  # defines the operators of quantized_decomposed
from onnx import ModelProto, NodeProto, helper
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import traceback

from mobilekd import graph
from mobilekd.backends import _torch_rules
from mobilekd.errors import StageError

ORIGIN = "onnx"
"""Key of `node.meta["custom"]`: the ONNX tensor that the operator behind a torch node writes."""

_ACTIVATION, _WEIGHT = (-128, 127), (-127, 127)
_READ_THROUGH = ("DequantizeLinear", "Constant")


@dataclass(frozen=True, slots=True)
class Pair:
    """A DequantizeLinear of a tensor that flows: what it reads, and the scale and zero point of that."""

    source: str
    scale: float
    zero_point: int


class TorchProgram(nn.Module):
    """Runs an ONNX graph with torch operators, in graph order.

    A DequantizeLinear is written once for each reader, as torch's own quantization does: delegates take dequantize,
    operator, quantize as one int8 operator, and refuse one whose input others read too.

    Args:
        model: In float or with Q/DQ nodes; of static shapes.
        outputs: What `forward` returns: real tensors, or outputs of a DequantizeLinear.
        in_float: Layers, by what they write, whose weight is stored as float32: int8 x scale.

    Raises:
        StageError: No torch form is known of an operator.
    """

    def __init__(self, model: ModelProto, outputs: Sequence[str], in_float: Collection[str] = ()) -> None:
        super().__init__()
        index = graph.index_qdq(model)
        self._nodes = [node for node in model.graph.node if node.op_type not in _READ_THROUGH]
        self._outputs = tuple(outputs)
        self._input = model.graph.input[0].name
        self._constants = {**index.constants, **_torch_rules.constant_nodes(model)}
        kept = {node.input[1] for node in self._nodes if node.output[0] in in_float and len(node.input) > 1}
        self._weights = {name: node for name, node in index.weights.items() if name not in kept}
        self._constants |= {name: graph.dequantized(index.weights[name], index) for name in kept & index.weights.keys()}
        self._pairs = {name: self._pair(index.maker[name]) for name in index.rounded}
        self._apart = frozenset(self._with_two_scales())
        self._buffers_of: dict[str, str] = {}
        for node in self._nodes:
            _torch_rules.check(node)
        self._store()

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs for one image."""
        values: dict[str, Tensor] = {self._input: image}
        for node in self._nodes:
            with traceback.annotate({ORIGIN: node.output[0]}):
                if node.op_type == "QuantizeLinear":
                    results: Sequence[Tensor] = (self._quantized(node, values),)
                else:
                    read = functools.partial(self._read, values)
                    results = _torch_rules.compute(node, read, self._constants, apart=node.output[0] in self._apart)
            values.update(zip(node.output, results, strict=False))
        return tuple(self._read(values, name) for name in self._outputs)

    def _read(self, values: Mapping[str, Tensor], name: str) -> Tensor:
        if (pair := self._pairs.get(name)) is not None:
            read = torch.ops.quantized_decomposed.dequantize_per_tensor.default
            return _tensor(read(values[pair.source], pair.scale, pair.zero_point, *_ACTIVATION, torch.int8))
        if name in self._weights:
            return self._weight(self._weights[name])
        return values[name] if name in values else self._buffer(name)

    def _quantized(self, node: NodeProto, values: Mapping[str, Tensor]) -> Tensor:
        scale, zero_point = self._grid(node)
        write = torch.ops.quantized_decomposed.quantize_per_tensor.default
        return _tensor(write(self._read(values, node.input[0]), scale, zero_point, *_ACTIVATION, torch.int8))

    def _weight(self, node: NodeProto) -> Tensor:
        stored, operators = self._buffer(node.input[0]), torch.ops.quantized_decomposed
        if self._constants[node.input[1]].size == 1:
            scale, zero_point = self._grid(node)
            return _tensor(operators.dequantize_per_tensor.default(stored, scale, zero_point, *_WEIGHT, torch.int8))
        axis = next((int(helper.get_attribute_value(one)) for one in node.attribute if one.name == "axis"), 1)
        grid = [self._buffer(name) for name in node.input[1:3]]
        return _tensor(operators.dequantize_per_channel.default(stored, *grid, axis, *_WEIGHT, torch.int8))

    def _pair(self, node: NodeProto) -> Pair:
        return Pair(node.input[0], *self._grid(node))

    def _with_two_scales(self) -> Iterator[str]:
        """Yield the clamps and concatenations of rounded tensors that are not all on the scale of the result.

        XNNPACK fuses a clamp into the convolution or sum before it, and with it drops the first of two roundings; a
        concatenation copies integers.
        """
        written = {node.input[0]: self._grid(node) for node in self._nodes if node.op_type == "QuantizeLinear"}
        for node in self._nodes:
            if node.op_type in _torch_rules.STAYS_APART:
                pairs = [self._pairs[name] for name in node.input if name in self._pairs]
                scales = {(pair.scale, pair.zero_point) for pair in pairs} | {written.get(node.output[0])}
                if pairs and None not in scales and len(scales) > 1:
                    yield node.output[0]

    def _grid(self, node: NodeProto) -> tuple[float, int]:
        """Return the one scale of a Q or DQ node, a float32 as a Python number, and its zero point."""
        scale, zero_point = (self._constants[name].reshape(-1) for name in node.input[1:3])
        if len(scale) != 1:
            raise StageError(f"{node.input[0]!r} has a scale for each channel; an activation has one")
        return float(scale[0]), int(zero_point[0])

    def _store(self) -> None:
        """Keep as buffers the constants that operators read as tensors."""
        read = {name for node in self._nodes if node.op_type != "QuantizeLinear" for name in node.input}
        zero_points = {node.input[2] for node in self._weights.values()}
        read |= {name for node in self._weights.values() for name in node.input[:3]}
        for number, name in enumerate(sorted(read & self._constants.keys())):
            value = self._constants[name]
            kept = value.astype(np.int64) if name in zero_points else value
            self._buffers_of[name] = f"constant_{number}"
            self.register_buffer(self._buffers_of[name], torch.from_numpy(np.array(kept)))

    def _buffer(self, name: str) -> Tensor:
        return _tensor(getattr(self, self._buffers_of[name]))


def exported(model: ModelProto, outputs: Sequence[str], in_float: Collection[str] = ()) -> ExportedProgram:
    """Return the program of a graph, for one image of its own input shape; see `TorchProgram`.

    Raises:
        StageError: No torch form is known of an operator.
    """
    shape = [int(one.dim_value) for one in model.graph.input[0].type.tensor_type.shape.dim]
    network = TorchProgram(model, outputs, in_float).eval()
    with quiet(), torch.no_grad(), traceback.preserve_node_meta():
        return torch.export.export(network, (torch.zeros(shape),), strict=False)


def origins(nodes: Sequence[torch.fx.Node]) -> Iterator[tuple[torch.fx.Node, str]]:
    """Yield the nodes that an ONNX operator stands behind, with the name of what that writes."""
    for node in nodes:
        if name := (node.meta.get("custom") or {}).get(ORIGIN):
            yield node, name


@contextmanager
def quiet() -> Iterator[None]:
    """Drop what torch warns of: its own deprecated parts."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _tensor(value: Any) -> Tensor:
    assert isinstance(value, Tensor)
    return value
