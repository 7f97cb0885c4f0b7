"""The trained network's name for what a runtime runs, where a model file keeps it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mobilekd.measurement import Measured

_WEIGHT = ".weight"


@dataclass(frozen=True, slots=True)
class LayerNames:
    """What model files tell of their layers.

    Attributes:
        by_node: Name of a node or of the tensor it writes -> layer, of the ONNX files: "conv2d_1" -> "blocks.0.conv".
        in_order: By TFLite file, the layers that have weights, in the order in which they run.
    """

    by_node: Mapping[str, str]
    in_order: Mapping[Path, Sequence[str]]


def read_names(models: Sequence[Measured]) -> LayerNames:
    """Return the layers of some models of one network.

    MNN's files keep no weights by name, but their operators are named for the tensors of the ONNX graph that they were
    made from; so an ONNX model among `models` names the layers of an MNN model, too.
    """
    by_node: dict[str, str] = {}
    in_order: dict[Path, Sequence[str]] = {}
    for model in models:
        backend = model.facts.deployment["backend"]
        if backend == "onnxruntime":
            by_node |= _of_onnx(model.model)
        elif backend == "tflite":
            in_order[model.model] = _of_tflite(model.model)
    return LayerNames(by_node, in_order)


def _of_onnx(path: Path) -> dict[str, str]:
    from mobilekd.graph import WEIGHTED_OPS, load

    graph = load(path).graph
    source = {name: node.input[0] for node in graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    named: dict[str, str] = {}
    for node in graph.node:
        weight = source.get(node.input[1], node.input[1]) if node.input[1:] else ""
        if node.op_type in WEIGHTED_OPS and weight.endswith(_WEIGHT):
            named |= {name: weight.removesuffix(_WEIGHT) for name in (node.name, *node.output)}
    return named


def _of_tflite(path: Path) -> list[str]:
    """Return a name for each matrix operator; that of its output where the weight has none."""
    from mobilekd.backends._tflite_graph import MATRIX_OPS, read_model, view

    graph = view(read_model(path))
    found = []
    for op in graph.ops:
        if op.kind in MATRIX_OPS:
            weight = graph.tensors[op.inputs[1]].name
            found.append(
                weight.removesuffix(_WEIGHT) if weight.endswith(_WEIGHT) else graph.tensors[op.outputs[0]].name
            )
    return found
