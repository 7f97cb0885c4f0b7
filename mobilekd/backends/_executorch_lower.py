"""A torch program as the bytes of a .pte file: what XNNPACK takes in delegates, the rest in portable kernels."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from onnx import ModelProto
from torch.fx import GraphModule

from mobilekd.backends import _torch_program

_NOT_OPERATORS = ("getitem", "executorch_call_delegate")


@dataclass(frozen=True, slots=True)
class Outside:
    """An operator that no delegate took: its name in torch, and the ONNX tensor that it stands behind, or ""."""

    operator: str
    origin: str


@dataclass(frozen=True, slots=True)
class Lowered:
    """A .pte file.

    Attributes:
        content: Its bytes.
        origins: The number that an operator has in the file -> the ONNX tensor that it stands behind.
        outside: Operators outside the delegates.
    """

    content: bytes
    origins: Mapping[int, str]
    outside: tuple[Outside, ...]


def lower(model: ModelProto, outputs: Sequence[str]) -> Lowered:
    """Return a graph as a .pte file, for one image.

    Raises:
        StageError: No torch form is known of an operator.
    """
    with _torch_program.quiet():
        edge = _edge(model, outputs, ())
        if refused := tuple(_layers_outside(edge)):
            edge = _edge(model, outputs, refused)
        module = edge.exported_program().graph_module
        numbered = {number: name for part in _parts(module) for number, name in _numbers(part)}
        outside = tuple(_outside(module))
        content = bytes(edge.to_executorch().buffer)
    return Lowered(content, numbered, outside)


def _edge(model: ModelProto, outputs: Sequence[str], in_float: Sequence[str]) -> Any:
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    program = _torch_program.exported(model, outputs, in_float)
    return to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])


def _layers_outside(edge: Any) -> Iterator[str]:
    """Yield the layers that XNNPACK refused with an int8 weight for each channel: portable kernels read no such one."""
    for node, name in _torch_program.origins(edge.exported_program().graph_module.graph.nodes):
        if "dequantize_per_channel" in getattr(node.target, "__name__", ""):
            yield name


def _parts(module: GraphModule) -> Iterator[Any]:
    """Yield the graph itself and that of each delegate."""
    from executorch.exir.lowered_backend_module import get_lowered_backend_modules

    yield module
    for delegate in get_lowered_backend_modules(module):
        yield delegate.original_module


def _numbers(part: Any) -> Iterator[tuple[int, str]]:
    for node, name in _torch_program.origins(part.graph.nodes):
        if isinstance(number := node.meta.get("debug_handle"), int):
            yield number, name


def _outside(module: GraphModule) -> Iterator[Outside]:
    names = dict(_torch_program.origins(list(module.graph.nodes)))
    for node in module.graph.nodes:
        operator = getattr(node.target, "__name__", "")
        if node.op == "call_function" and operator not in _NOT_OPERATORS:
            yield Outside(operator, names.get(node, ""))
