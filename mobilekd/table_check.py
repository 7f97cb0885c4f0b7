"""Does a quantization table belong to a graph?"""

from collections.abc import Iterator

from onnx import ModelProto

from mobilekd.errors import StageError
from mobilekd.graph import WEIGHTED_OPS
from mobilekd.quant_table import QuantTable, TensorQuant


def check_matches(table: QuantTable, stripped: ModelProto) -> None:
    """Accept a table whose every entry names a tensor of the graph, and that says of every layer what it is.

    Args:
        table: Of quant_table.json.
        stripped: stripped.onnx.

    Raises:
        StageError: Names the first tensor that does not match.
    """
    for told in _mismatches(table, stripped):
        raise StageError(
            f"the quantization table does not match the graph: {told}", hint="mobilekd build --fresh", code="MKD-412"
        )


def _mismatches(table: QuantTable, stripped: ModelProto) -> Iterator[str]:
    shapes = {one.name: tuple(one.dims) for one in stripped.graph.initializer}
    flowing = {name for node in stripped.graph.node for name in node.output}
    flowing |= {one.name for one in stripped.graph.input}
    floats = {one.name for one in table.float_operators}
    for tensor in table.tensors:
        if tensor.role == "activation" and tensor.name not in flowing:
            yield f"no operator writes the activation {tensor.name!r}"
        if tensor.role != "activation":
            yield from _constant_mismatch(tensor, shapes.get(tensor.name))
    for name in sorted(floats - flowing):
        yield f"no operator writes {name!r}, which float_operators names"
    entries = table.by_name()
    for node in stripped.graph.node:
        if node.op_type not in WEIGHTED_OPS or node.output[0] in floats:
            continue
        for name in node.input[:2]:
            if name not in entries:
                yield f"{name!r}, read by the {node.op_type} {node.output[0]!r}, has no entry and is not float"


def _constant_mismatch(tensor: TensorQuant, shape: tuple[int, ...] | None) -> Iterator[str]:
    if shape is None:
        yield f"the graph has no {tensor.role} {tensor.name!r}"
        return
    if tensor.axis is None:
        if len(tensor.scale) != 1:
            yield f"{tensor.name!r} has {len(tensor.scale)} scales and no axis"
        return
    channels = shape[tensor.axis] if tensor.axis < len(shape) else 0
    if channels != len(tensor.scale):
        yield f"{tensor.name!r} has {channels} channels in the graph and {len(tensor.scale)} scales in the table"
