"""Which operators of a QDQ graph compute in float, and why."""

from collections import Counter
from collections.abc import Mapping, Sequence

from onnx import ModelProto, NodeProto

from mobilekd.graph import WEIGHTED_OPS, index_qdq, public_names
from mobilekd.quant_table import DECIDED, FloatOperator

_PAIRS = ("QuantizeLinear", "DequantizeLinear")
_CLAMPS = ("Relu", "Clip")

# fmt: off
_MOVES = frozenset((
    "Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Slice", "Gather", "Split", "Expand",
    "Concat", "Pad", "Tile", "DepthToSpace", "SpaceToDepth", "Shape", "Constant", "ConstantOfShape", "Cast",
))
# fmt: on
"""Operators that move numbers; they compute nothing, in integers or not."""

_NO_KERNEL = {
    "LayerNormalization": "no int8 kernel in ONNX Runtime, TFLite or TensorRT",
    "GroupNormalization": "no int8 kernel in ONNX Runtime, TFLite or TensorRT",
    "InstanceNormalization": "no int8 kernel in ONNX Runtime, TFLite or TensorRT",
    "Softmax": "no int8 kernel in TensorRT; those of ONNX Runtime and TFLite write with a scale of their own, 1/256",
    "LogSoftmax": "no int8 kernel in ONNX Runtime or TensorRT; TFLite's writes with a scale of its own, 16/256",
    "Erf": "no int8 kernel in ONNX Runtime, TFLite or TensorRT",
    "Pow": "no int8 kernel in ONNX Runtime, TFLite or TensorRT",
    "Sqrt": "no int8 kernel in ONNX Runtime, TFLite or TensorRT",
    "Reciprocal": "no int8 kernel in ONNX Runtime, TFLite or TensorRT",
    "Exp": "no int8 kernel in ONNX Runtime or TensorRT",
    "Log": "no int8 kernel in ONNX Runtime or TensorRT",
    "Div": "no int8 kernel in ONNX Runtime, TFLite or TensorRT",
    "ReduceSum": "no int8 kernel in ONNX Runtime or TensorRT",
    "ReduceMax": "no int8 kernel in ONNX Runtime or TensorRT",
    "ReduceL2": "no int8 kernel in ONNX Runtime, TFLite or TensorRT",
}


def find_float_operators(model: ModelProto, decided: Mapping[str, str]) -> tuple[FloatOperator, ...]:
    """Return the operators that do not compute from integers to integers, in graph order.

    An operator computes in integers when all that flows in was rounded, what it writes is rounded (behind the clamp
    fused into it), and int8 kernels of it exist. Operators that only move numbers are left out.

    Args:
        model: QDQ graph with named weights.
        decided: Layers that were decided to stay float -> who decided it: "keep_float" or "max_top1_drop".
    """
    return _Finder(model, decided).run()


def name_float_nodes(model: ModelProto, floats: Sequence[FloatOperator]) -> ModelProto:
    """Return the model with each float operator named for the tensor that it writes, as the table calls it.

    Runtimes report what computes in float by the name of its node.
    """
    public = public_names(model, index_qdq(model))
    names = {one.name for one in floats}
    for node in model.graph.node:
        name = public.get(node.output[0], node.output[0])
        if name in names and node.op_type not in _PAIRS:
            node.name = name
    return model


class _Finder:
    """One pass over a QDQ graph."""

    def __init__(self, model: ModelProto, decided: Mapping[str, str]) -> None:
        self._nodes = [node for node in model.graph.node if node.op_type not in _PAIRS]
        self._decided = {f"{layer}.weight": option for layer, option in decided.items()}
        self._index = index_qdq(model)
        self._public = public_names(model, self._index)
        self._rounded = {node.input[0] for node in model.graph.node if node.op_type == "QuantizeLinear"}
        self._readers = {name: node for node in self._nodes for name in node.input}
        self._reads = Counter(name for node in model.graph.node for name in node.input)
        self._int8: set[str] = set()
        self._kept: dict[str, str] = {}

    def run(self) -> tuple[FloatOperator, ...]:
        found = []
        for node in self._nodes:
            reason = self._reason(node)
            if not reason:
                self._int8.update(node.output)
                continue
            if reason.startswith(DECIDED):
                self._kept.update(dict.fromkeys(node.output, reason))
            if node.op_type not in _MOVES:
                name = self._public.get(node.output[0], node.output[0])
                found.append(FloatOperator(name, node.op_type, reason))
        return tuple(found)

    def _reason(self, node: NodeProto) -> str:
        """Return why a node computes in float; empty when it does not."""
        if node.op_type in WEIGHTED_OPS and node.input[1] in self._decided:
            return f"{DECIDED}{self._decided[node.input[1]]}"
        if node.op_type in _CLAMPS and node.input[0] in self._kept:
            return self._kept[node.input[0]]  # one operator with its layer, in every runtime
        if node.op_type in _NO_KERNEL:
            return _NO_KERNEL[node.op_type]
        unrounded = [name for name in self._flowing(node) if not self._is_rounded(name, node)]
        if unrounded:
            return f"reads {unrounded[0]!r}, which is not rounded"
        if not self._is_written_rounded(node):
            return "between float operators: what it writes is not rounded"
        return ""

    def _flowing(self, node: NodeProto) -> list[str]:
        """Return the inputs that must be rounded: what flows and, of a layer, its weight."""
        if node.op_type in WEIGHTED_OPS:
            return list(node.input[:2])
        return [name for name in node.input if name and name not in self._index.constants]

    def _is_rounded(self, name: str, reader: NodeProto) -> bool:
        if name in self._index.rounded or name in self._index.weights:
            return True
        return reader.op_type in _CLAMPS and name in self._int8 and self._reads[name] == 1

    def _is_written_rounded(self, node: NodeProto) -> bool:
        name = node.output[0]
        if name in self._rounded:
            return True
        behind = self._readers.get(name)
        is_fused = behind is not None and behind.op_type in _CLAMPS and self._reads[name] == 1
        return is_fused and behind is not None and self._is_written_rounded(behind)
