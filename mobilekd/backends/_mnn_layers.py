"""Which layers of a trained graph MNN's converter can be told to store in int8."""

from collections.abc import Sequence
from dataclasses import dataclass

from onnx import ModelProto, NodeProto

from mobilekd import graph
from mobilekd.quant_table import QuantTable


@dataclass(frozen=True, slots=True)
class Layer:
    """One convolution or linear layer, or the part of one that an operator in the file computes.

    Attributes:
        node: Name of the operator.
        input, weight, output, bias: Names in the table; `output` is behind a fused activation, `bias` may be "".
        written: The tensor that the operator writes: `output`, or a part of it.
        channels: First and last (exclusive) output channel of a part; None for a whole layer.
        trained_channels: Output channels that were trained, where the operator has more (`_mnn_columns`); else None.
    """

    node: str
    input: str
    weight: str
    output: str
    bias: str
    written: str
    channels: tuple[int, int] | None = None
    trained_channels: int | None = None

    def tensors(self) -> tuple[str, ...]:
        """Return the names of all its tensors."""
        return tuple(name for name in (self.input, self.weight, self.output, self.bias) if name)


def int8_layers(stripped: ModelProto, table: QuantTable) -> tuple[Layer, ...]:
    """Return the layers whose input, weight and output are in the table.

    A product of two activations is none, and MNN has no int8 kernel for a transposed convolution.
    """
    quants = table.by_name()
    weights = {one.name for one in table.with_role("weight")}
    readers: dict[str, list[NodeProto]] = {}
    for node in stripped.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    layers = []
    for node in stripped.graph.node:
        if node.op_type not in graph.WEIGHTED_OPS or node.op_type == "ConvTranspose":
            continue
        output = _rounded_output(node.output[0], readers, table)
        if node.input[1] in weights and {node.input[0], output} <= quants.keys():
            bias = node.input[2] if len(node.input) > 2 and node.input[2] in quants else ""
            layers.append(Layer(node.name, node.input[0], node.input[1], output, bias, output))
    return tuple(layers)


def _rounded_output(output: str, readers: dict[str, list[NodeProto]], table: QuantTable) -> str:
    """Return the tensor behind what the converter fuses into a layer."""
    after: Sequence[NodeProto] = readers.get(output, ())
    if output not in table.by_name() and len(after) == 1 and after[0].op_type in ("Relu", "Clip"):
        return str(after[0].output[0])
    return output
