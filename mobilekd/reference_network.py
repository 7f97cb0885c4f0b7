"""The trained int8 network, tensor by tensor: qdq.onnx as ONNX Runtime computes it with its optimizations off."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper

from mobilekd import graph

Float32 = NDArray[np.float32]
_GIVEN = "_given"
_MOST_NAMED = 4


class ReferenceNetwork:
    """Runs one image at a time and keeps every quantized activation; names as in quant_table.json, in graph order."""

    def __init__(self, qdq_onnx: Path) -> None:
        self._model = graph.load(qdq_onnx)
        index = graph.index_qdq(self._model)
        public = graph.public_names(self._model, index)
        self._name_of = {real: public.get(tensor, tensor) for real, tensor in index.rounded.items()}
        self._real_of = {name: real for real, name in reversed(self._name_of.items())}
        self.names = tuple(dict.fromkeys(self._name_of.values()))
        self.operators = {name: _operator(real, self._model, index) for name, real in self._real_of.items()}

    def run(self, image: Float32, given: Mapping[str, Float32]) -> dict[str, Float32]:
        """Return the dequantized values of every tensor for one image.

        Args:
            image: [1, channels, height, width], normalised.
            given: Values that every operator reads in place of the network's own; empty gives the network as it is.
                With all tensors of a deployed model, each result is what the trained operator makes of that model's
                inputs.
        """
        session = self._session(given)
        feeds = {self._model.graph.input[0].name: image}
        feeds |= {name + _GIVEN: np.ascontiguousarray(value, np.float32) for name, value in given.items()}
        values = session.run([self._real_of[name] for name in self.names], feeds)
        return dict(zip(self.names, values, strict=True))

    def _session(self, given: Mapping[str, Float32]) -> Any:
        import onnxruntime as ort

        model = ModelProto()
        model.CopyFrom(self._model)
        read = {real: name + _GIVEN for real, name in self._name_of.items() if name in given}
        for node in model.graph.node:
            node.input[:] = [read.get(name, name) for name in node.input]
        for name, value in given.items():
            model.graph.input.append(helper.make_tensor_value_info(name + _GIVEN, TensorProto.FLOAT, value.shape))
        outputs = {one.name for one in model.graph.output}
        for real in sorted(set(self._real_of.values()) - outputs):
            model.graph.output.append(helper.make_tensor_value_info(real, TensorProto.FLOAT, None))
        ort.disable_telemetry_events()
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _operator(real: str, model: ModelProto, index: graph.QdqIndex) -> str:
    """Return the operators between the last rounded tensors and this one, in order of computation: "Conv+Relu"."""
    source = index.rounded[real]
    found: set[str] = set()
    open_ends = [source]
    while open_ends:
        tensor = open_ends.pop()
        if tensor in found or tensor in index.rounded or tensor in index.weights or tensor not in index.maker:
            continue
        found.add(tensor)
        open_ends += index.maker[tensor].input
    ops = [node.op_type for node in model.graph.node if not found.isdisjoint(node.output)]
    if not ops:
        return "Requantize" if source in index.rounded else "input"
    return "+".join(ops) if len(ops) <= _MOST_NAMED else f"{ops[0]}+…+{ops[-1]}"
