"""The trained QDQ graph in the form that ONNX Runtime runs in int8 from end to end.

ONNX Runtime fuses DequantizeLinear → Conv → QuantizeLinear to QLinearConv, with conditions that a plain
export with symmetric int8 activations misses (1.32: 34 of 46 convolutions and all additions of a
MobileNetV4-small stayed float):

- A Relu between Conv and QuantizeLinear is absorbed only when the zero point is the lowest integer. Here it moves
  behind the QuantizeLinear as an integer Clip. Rounding is monotone, so Q(clip(x, a, b)) = clip(Q(x), Q(a), Q(b)):
  not one bit changes.
- On x86 int8 activations become uint8 at load time, yet only for a Q that feeds one DQ; a layer with int8 on one
  side and uint8 on the other is not fused. Here all activations are stored as uint8 with zero point + 128, the
  same integers moved by 128. That type is also the fast one: 0.25 ms against 1.5 ms a MobileNetV4-small-050 at
  64 px with AVX512-VNNI. ARM has kernels for both.
- Softmax is fused too, and its integer kernel is 0.2 of a step off (1.32): a Max of one tensor, which does nothing,
  keeps it in float.
- A float bias is fused only after it was quantized at load time. Here it is int32 at input scale x weight scale.

A layer whose weight stays float must be kept from becoming int8: where it reads a DequantizeLinear with one scale, ONNX
Runtime rounds its weight at load time, with one scale for all channels (WeightBiasQuantization, 1.32: logits of a
MobileNetV2 with most layers in float were off by a tenth of their spread). It leaves a DequantizeLinear with a scale a
channel alone; so such a layer gets the same scale, once for each channel.
"""

import itertools
from collections import Counter
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from mobilekd import graph
from mobilekd.errors import StageError
from mobilekd.quant_table import QuantTable

UINT8_SHIFT = 128
QUANTIZED, UNCLAMPED, _REAL = "_quantized", "_unclamped", "_real"
ANOTHER = "_for_another_reader_of_"
"""In the name of a copied weight, before the tensor that it is copied for."""


class _Rewriter:
    """One pass over a QDQ graph; nodes are copied, so the source stays as it was."""

    def __init__(self, model: ModelProto) -> None:
        self._index = graph.index_qdq(model)
        self._readers = Counter(name for node in model.graph.node for name in node.input)
        self._public = graph.public_names(model, self._index)
        self._copies = itertools.count(1)
        self._spread: set[str] = set()
        self._moved: set[str] = set()
        self._outputs = {one.name for one in model.graph.output}
        self.nodes: list[NodeProto] = []
        self.constants: dict[str, NDArray[np.generic]] = dict(self._index.constants)

    def run(self, model: ModelProto) -> None:
        clamps = {node.output[0] for node in model.graph.node if node.op_type in ("Relu", "Clip")}
        for node in model.graph.node:
            if node.op_type == "QuantizeLinear" and node.input[0] in clamps and self._readers[node.input[0]] == 1:
                self._moved.add(node.input[0])
        for node in model.graph.node:
            self._visit(node)

    def _visit(self, node: NodeProto) -> None:
        if node.output[0] in self._moved:
            return
        if node.op_type == "QuantizeLinear":
            self._quantize(node)
        elif node.op_type != "DequantizeLinear":
            self._compute(node)
        elif node.output[0] in self._outputs:
            self._dequantize(node, node.output[0])

    def _quantize(self, node: NodeProto) -> None:
        name = self._public.get(node.input[0], node.input[0])
        clamp = self._index.maker[node.input[0]] if node.input[0] in self._moved else None
        low, high = self._clamp(clamp, node) if clamp else (0, 255)
        source = clamp.input[0] if clamp else node.input[0]
        quantized, is_clamped = name + QUANTIZED, (low, high) != (0, 255)
        rounded = quantized + UNCLAMPED if is_clamped else quantized
        inputs = [self._read(source), node.input[1], self._zero_point(node)]
        self.nodes.append(helper.make_node("QuantizeLinear", inputs, [rounded], name=node.name))
        if clamp and is_clamped:
            limits = [self._uint8(low), self._uint8(high)]
            self.nodes.append(helper.make_node("Clip", [rounded, *limits], [quantized], name=clamp.name))

    def _clamp(self, clamp: NodeProto, quantize: NodeProto) -> tuple[int, int]:
        """Return the integers of a Relu's or Clip's bounds, as the QuantizeLinear behind it rounds them."""
        scale = self._constant(quantize.input[1]).astype(np.float32)
        zero = int(self._constant(quantize.input[2])) + UINT8_SHIFT
        bounds = [*clamp.input[1:], "", ""][:2] if clamp.op_type == "Clip" else ["", ""]
        low, high = (float(self._constant(name)) if name else None for name in bounds)
        if clamp.op_type == "Relu":
            low = 0.0
        return (
            0 if low is None else int(np.clip(np.rint(np.float32(low) / scale) + zero, 0, 255)),
            255 if high is None else int(np.clip(np.rint(np.float32(high) / scale) + zero, 0, 255)),
        )

    def _compute(self, node: NodeProto) -> None:
        copy = NodeProto()
        copy.CopyFrom(node)
        copy.input[:] = [self._read(name) for name in node.input]
        if node.op_type in graph.WEIGHTED_OPS and node.input[1] in self._index.constants:
            self._repeat_scale(copy.input[0], self._channels(node))
        if (grid := graph.bias_grid(node, self._index)) is not None:
            copy.input[2] = self._int32_bias(node.input[2], grid)
        if node.op_type == "Softmax":
            fence = helper.make_node("Max", copy.input, [f"{node.output[0]}_fence"], name=f"{node.output[0]}_fence")
            copy.input[0] = fence.output[0]
            self.nodes.append(fence)
        self.nodes.append(copy)

    def _read(self, name: str) -> str:
        """Return a DequantizeLinear's output for one reader; a second reader gets a node of its own."""
        maker = self._index.maker.get(name)
        if maker is None or maker.op_type != "DequantizeLinear":
            return name
        output = f"{name}_{next(self._copies)}" if name in self._spread or name in self._outputs else name
        self._spread.add(name)
        self._dequantize(maker, output)
        return output

    def _dequantize(self, node: NodeProto, output: str) -> None:
        copy = NodeProto()
        copy.CopyFrom(node)
        copy.output[0] = output
        copy.name = node.name if output == node.output[0] else f"{node.name}_for_{output}"
        if node.output[0] in self._index.rounded:
            tensor = self._index.rounded[node.output[0]]
            copy.input[:] = [self._public.get(tensor, tensor) + QUANTIZED, node.input[1], self._zero_point(node)]
        else:
            # A weight and a zero point of its own for each reader: with one shared by two, loading under
            # "session.x64quantprecision" dies with "Attempt to replace the existing tensor" (ONNX Runtime 1.32).
            weight = node.input[0] if output == node.output[0] else f"{node.input[0]}{ANOTHER}{output}"
            copy.input[0], copy.input[2] = weight, f"{weight}_zero_point"
            self.constants[copy.input[0]] = self._index.constants[node.input[0]]
            self.constants[copy.input[2]] = self._index.constants[node.input[2]]
        self.nodes.append(copy)

    def _repeat_scale(self, name: str, channels: int) -> None:
        """Give the DequantizeLinear that one layer reads its scale once for each channel."""
        node = next((one for one in reversed(self.nodes) if one.output[0] == name), None)
        if node is None or node.op_type != "DequantizeLinear":
            return
        for at in (1, 2):
            single = self.constants[node.input[at]]
            node.input[at] = f"{node.input[at]}_x{channels}"
            self.constants[node.input[at]] = np.full(channels, single.reshape(()), single.dtype)
        del node.attribute[:]
        node.attribute.append(helper.make_attribute("axis", 1))

    def _channels(self, node: NodeProto) -> int:
        """Return the channels that a layer with a constant weight reads."""
        attributes = {one.name: helper.get_attribute_value(one) for one in node.attribute}
        sizes = self._index.constants[node.input[1]].shape
        if node.op_type == "Conv":
            return int(sizes[1] * attributes.get("group", 1))
        return int(sizes[1] if attributes.get("transB") else sizes[0])

    def _int32_bias(self, name: str, grid: NDArray[np.float32]) -> str:
        """Store a bias as int32 on the accumulator's grid; return the name of its real value."""
        steps = np.rint(self._index.constants[name].astype(np.float64) / grid.astype(np.float64))
        self.constants[name] = steps.astype(np.int32)
        self.constants[name + "_scale"] = np.broadcast_to(grid, steps.shape).copy()
        inputs = [name, name + "_scale"]
        self.nodes.append(helper.make_node("DequantizeLinear", inputs, [name + _REAL], name=name + _REAL, axis=0))
        return name + _REAL

    def _zero_point(self, node: NodeProto) -> str:
        return self._uint8(int(self._constant(node.input[2])) + UINT8_SHIFT)

    def _uint8(self, value: int) -> str:
        self.constants[f"uint8_{value}"] = np.asarray(value, np.uint8)
        return f"uint8_{value}"

    def _constant(self, name: str) -> NDArray[np.generic]:
        if name not in self._index.constants:
            raise StageError(
                f"{name!r} must be a constant of the graph", hint="simplify the ONNX model first", code="MKD-420"
            )
        return self._index.constants[name].reshape(())


def fuse_ready(model: ModelProto) -> ModelProto:
    """Return a QDQ graph that computes the same, bit by bit, and that ONNX Runtime fuses to integer kernels.

    Args:
        model: The trained network: int8 activations per tensor, int8 weights, float biases on the int32 grid.
    """
    rewriter = _Rewriter(model)
    rewriter.run(model)
    ready = ModelProto()
    ready.CopyFrom(model)
    del ready.graph.node[:]
    del ready.graph.initializer[:]
    ready.graph.node.extend(rewriter.nodes)
    _keep_used(ready, rewriter.constants)
    return graph.canonicalize(ready)


def _keep_used(model: ModelProto, constants: Mapping[str, NDArray[np.generic]]) -> None:
    used = {name for node in model.graph.node for name in node.input}
    kept = (numpy_helper.from_array(value, name) for name, value in constants.items() if name in used)
    model.graph.initializer.extend(kept)


def with_int8_io(model: ModelProto, table: QuantTable) -> ModelProto:
    """Return the graph with int8 input and output: an int8 → uint8 move by 128 stands at both ends.

    Raises:
        StageError: The input or the output is not quantized.
    """
    image, logits = model.graph.input[0], model.graph.output[0]
    quants = table.by_name()
    unquantized = [one.name for one in (image, logits) if one.name not in quants]
    if unquantized:
        raise StageError(f"io = int8, but {unquantized[0]!r} is not in the quantization table", code="MKD-420")
    for one in (image, logits):
        quant = quants[one.name]
        one.type.tensor_type.elem_type = TensorProto.INT8
        _constant(model, one.name + "_io_scale", np.asarray(quant.scale[0], np.float32))
        _constant(model, one.name + "_io_zero_point", np.asarray(quant.zero_point[0], np.int8))
    for node in model.graph.node:
        node.input[:] = [image.name + _REAL if name == image.name else name for name in node.input]
        node.output[:] = [logits.name + _REAL if name == logits.name else name for name in node.output]
    enter = _edge_node("DequantizeLinear", image.name, image.name, image.name + _REAL)
    leave = _edge_node("QuantizeLinear", logits.name, logits.name + _REAL, logits.name)
    nodes = [enter, *model.graph.node, leave]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def _edge_node(op: str, tensor: str, source: str, out: str) -> NodeProto:
    return helper.make_node(op, [source, f"{tensor}_io_scale", f"{tensor}_io_zero_point"], [out], name=f"{tensor}_{op}")


def _constant(model: ModelProto, name: str, value: NDArray[np.generic]) -> None:
    model.graph.initializer.append(numpy_helper.from_array(value, name))
