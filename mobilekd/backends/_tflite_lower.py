"""The walk over an ONNX graph that writes a TFLite model."""

from collections.abc import Mapping

import numpy as np

from mobilekd.backends import _tflite_layout as layout
from mobilekd.backends._tflite_call import Call, Rule
from mobilekd.backends._tflite_source import QUANTIZE, Node
from mobilekd.backends._tflite_tensors import Tensors
from mobilekd.errors import StageError


class Lowering:
    """Writes every node of a graph with the rule of its operator."""

    def __init__(self, tensors: Tensors, rules: Mapping[str, Rule]) -> None:
        self._tensors = tensors
        self._rules = rules
        self._fused: set[str] = set()

    def run(self) -> None:
        """Write every node.

        Raises:
            StageError: An operator is not known, or can't be written.
        """
        for node in self._tensors.source.nodes:
            if node.outputs[0] in self._fused:
                continue
            if node.op == QUANTIZE:
                self._round(node)
                continue
            rule = self._rules.get(node.op)
            if rule is None:
                raise StageError(
                    f"no TFLite form is known of the ONNX operator {node.op} ({node.name})",
                    hint=f"known: {', '.join(sorted(self._rules))}; take it out of the network, or drop the "
                    "tflite deployment",
                    code="MKD-420",
                )
            call = Call(self._tensors, node, rule)
            self._fused.update(sink.tail for sink in call.sinks if sink.tail not in node.outputs)
            rule.emit(call)

    def _round(self, node: Node) -> None:
        """Write a QuantizeLinear that no int8 operator has written."""
        tensors, (source,), (key,) = self._tensors, node.inputs, node.outputs
        if key in tensors.axes:
            return
        rounded = tensors.source.rounded[key]
        if (data := tensors.source.constant(source)) is not None:
            steps = np.rint(data.astype(np.float32) / np.float32(rounded.quant.scale[0])) + rounded.quant.zero_point
            payload = np.clip(steps, -128, 127).astype(np.int8)
            tensors.define(
                key, "int8", tensors.constant(rounded.name, payload, rounded.quant), layout.identity(data.ndim)
            )
            return
        if source in tensors.source.rounded:
            before = tensors.read(source, "int8")
            is_same = tensors.source.rounded[source].quant == rounded.quant
            index = before.index if is_same else tensors.requantize(before.index, rounded.name, rounded.quant)
            tensors.define(key, "int8", index, before.axes)
            return
        value = tensors.read(source, "float32")
        shape = tensors.builder.tensors[value.index].shape
        index = tensors.emit("QUANTIZE", [value.index], rounded.name, shape, "int8", quant=rounded.quant)
        tensors.define(key, "int8", index, value.axes)
