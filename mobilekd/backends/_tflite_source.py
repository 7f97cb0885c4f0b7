"""An ONNX graph as the TFLite writer reads it: Q/DQ pairs become properties of the tensors between operators."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, helper, numpy_helper

from mobilekd import graph
from mobilekd.backends._tflite_model import Quant
from mobilekd.errors import StageError

Array = NDArray[Any]
Attribute = int | float | str | tuple[int, ...]
QUANTIZE = "QuantizeLinear"


@dataclass(frozen=True, slots=True)
class Node:
    """One operator. Attributes that are text are decoded; an absent optional input is ""."""

    op: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Attribute]

    def number(self, name: str, default: float) -> float:
        """Return a numeric attribute."""
        value = self.attributes.get(name, default)
        assert isinstance(value, int | float)
        return value

    def integers(self, name: str, default: Sequence[int]) -> tuple[int, ...]:
        """Return an attribute that is a list of integers."""
        value = self.attributes.get(name, tuple(default))
        assert isinstance(value, tuple)
        return value

    def text(self, name: str, default: str) -> str:
        """Return an attribute that is text."""
        return str(self.attributes.get(name, default))


@dataclass(frozen=True, slots=True)
class Rounded:
    """What a QuantizeLinear writes: the public name of the tensor that is rounded, and its scale and zero point."""

    name: str
    quant: Quant


@dataclass(frozen=True, slots=True)
class Weight:
    """An int8 constant and its scales: one, or one for each index of `axis`."""

    name: str
    payload: NDArray[np.int8]
    scale: NDArray[np.float32]
    axis: int

    def real(self) -> NDArray[np.float32]:
        """Return int8 x scale."""
        shape = [1] * self.payload.ndim
        if len(self.scale) > 1:
            shape[self.axis] = len(self.scale)
        elif not shape:
            return np.asarray(self.payload * self.scale[0], np.float32)
        return (self.payload.astype(np.float32) * self.scale.reshape(shape)).astype(np.float32)


class Source:
    """A graph whose nodes read three kinds of names: real tensors, rounded ones (the output of their Q), constants.

    Attributes:
        nodes: In the order in which they run; a QuantizeLinear has one input, a DequantizeLinear is not there.
        rounded: By the output of the QuantizeLinear.
        weights: int8 constants, by name.
        constants: Other constants, by name.
        shapes: Of real and rounded tensors; batch 1.
        input, output: Names of the image and of the logits, as nodes know them.
        output_name: The public name of the output.
    """

    def __init__(self, model: ModelProto) -> None:
        index = graph.index_qdq(model)
        self.constants: dict[str, Array] = {**index.constants, **_constant_nodes(model)}
        self.weights = {node.input[0]: _weight(node, index) for node in index.weights.values()}
        alias = {name: node.input[0] for name, node in index.weights.items()}
        quantizers = {node.output[0]: node for node in model.graph.node if node.op_type == QUANTIZE}
        alias |= {name: index.maker[name].input[0] for name in index.rounded}
        public = graph.public_names(model, index)
        self.rounded = {
            name: Rounded(public.get(node.input[0], node.input[0]), _quant(node, index))
            for name, node in quantizers.items()
        }
        self.nodes: tuple[Node, ...] = tuple(_nodes(model, alias, quantizers))
        self.shapes = _shapes(model)
        self.input, self.output_name = _only(model.graph.input, "inputs"), _only(model.graph.output, "outputs")
        self.output = alias.get(self.output_name, self.output_name)
        self._index_readers()

    def replace_nodes(self, nodes: Sequence[Node]) -> None:
        """Set the nodes, without those whose results nothing reads."""
        kept: list[Node] = []
        wanted = {self.output}
        for node in reversed(nodes):
            if wanted.intersection(node.outputs):
                kept.append(node)
                wanted.update(node.inputs)
        self.nodes = tuple(reversed(kept))
        self._index_readers()

    def readers(self, name: str) -> Sequence[Node]:
        """Return the nodes that read a tensor."""
        return self._readers.get(name, ())

    def maker(self, name: str) -> Node | None:
        """Return the node that writes a tensor."""
        return self._makers.get(name)

    def is_constant(self, name: str) -> bool:
        """Return whether a name is a constant, int8 or not."""
        return name in self.weights or name in self.constants

    def constant(self, name: str) -> Array | None:
        """Return the real values of a constant; None for a tensor that flows."""
        if name in self.weights:
            return self.weights[name].real()
        return self.constants.get(name)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the ONNX shape of a tensor or a constant.

        Raises:
            StageError: Shape inference does not know it.
        """
        if self.is_constant(name):
            value = self.weights[name].payload if name in self.weights else self.constants[name]
            return tuple(value.shape)
        if name not in self.shapes:
            raise StageError(
                f"the shape of ONNX tensor {name!r} is not known", hint="export with a fixed input size", code="MKD-420"
            )
        return self.shapes[name]

    def _index_readers(self) -> None:
        readers: dict[str, list[Node]] = defaultdict(list)
        for node in self.nodes:
            for name in dict.fromkeys(node.inputs):
                readers[name].append(node)
        self._readers = dict(readers)
        self._makers = {name: node for node in self.nodes for name in node.outputs}


def _nodes(model: ModelProto, alias: Mapping[str, str], quantizers: Mapping[str, onnx.NodeProto]) -> Iterator[Node]:
    for node in model.graph.node:
        if node.op_type in ("DequantizeLinear", "Constant"):
            continue
        inputs = [alias.get(name, name) for name in node.input]
        if node.output[0] in quantizers:
            inputs = inputs[:1]
        yield Node(node.op_type, node.name or node.output[0], tuple(inputs), tuple(node.output), _attributes(node))


def _constant_nodes(model: ModelProto) -> dict[str, Array]:
    values = ((node.output[0], node.attribute[0]) for node in model.graph.node if node.op_type == "Constant")
    return {name: numpy_helper.to_array(one.t) for name, one in values if one.name == "value"}


def _attributes(node: onnx.NodeProto) -> dict[str, Attribute]:
    values: dict[str, Attribute] = {}
    for one in node.attribute:
        value = helper.get_attribute_value(one)
        if isinstance(value, bytes):
            values[one.name] = value.decode()
        elif isinstance(value, int | float):
            values[one.name] = value
        elif isinstance(value, Sequence):
            values[one.name] = tuple(value)
    return values


def _quant(node: onnx.NodeProto, index: graph.QdqIndex) -> Quant:
    scale, zero_point = (index.constants[name].reshape(-1) for name in node.input[1:3])
    if len(scale) != 1:
        raise StageError(
            f"{node.input[0]!r} has a scale for each channel; TFLite has one for an activation", code="MKD-420"
        )
    return Quant((float(np.float32(scale[0])),), int(zero_point[0]))


def _weight(node: onnx.NodeProto, index: graph.QdqIndex) -> Weight:
    axis = next((int(helper.get_attribute_value(one)) for one in node.attribute if one.name == "axis"), 1)
    scale = index.constants[node.input[1]].reshape(-1).astype(np.float32)
    payload = index.constants[node.input[0]]
    return Weight(node.input[0], payload.astype(np.int8), scale, axis % max(1, payload.ndim) if len(scale) > 1 else 0)


def _shapes(model: ModelProto) -> dict[str, tuple[int, ...]]:
    """Return the shapes that ONNX infers; a GroupNormalization, which stops its inference, keeps its input's."""
    inferred = model
    while True:
        inferred = onnx.shape_inference.infer_shapes(inferred, data_prop=True)
        known = (*inferred.graph.value_info, *inferred.graph.input, *inferred.graph.output)
        shapes = {one.name: shape for one in known if (shape := _known_shape(one)) is not None}
        lost = [
            node
            for node in model.graph.node
            if node.op_type == "GroupNormalization" and node.output[0] not in shapes and node.input[0] in shapes
        ]
        if not lost:
            return shapes
        inferred.graph.value_info.extend(
            helper.make_tensor_value_info(node.output[0], onnx.TensorProto.FLOAT, shapes[node.input[0]])
            for node in lost
        )


def _known_shape(value: onnx.ValueInfoProto) -> tuple[int, ...] | None:
    tensor = value.type.tensor_type
    if not tensor.HasField("shape") or not all(size.HasField("dim_value") for size in tensor.shape.dim):
        return None
    return tuple(size.dim_value for size in tensor.shape.dim)


def _only(values: Sequence[onnx.ValueInfoProto], what: str) -> str:
    if len(values) != 1:
        names = ", ".join(one.name for one in values)
        raise StageError(f"the ONNX graph has {len(values)} {what} ({names}); one is needed", code="MKD-420")
    return str(values[0].name)
