"""From what a torch program calls its operators back to the names of the quantization table."""

from onnx import ModelProto, NodeProto

from mobilekd import graph

_CLAMPS = ("Relu", "Clip")


class Names:
    """What stands behind the operators of a file."""

    def __init__(self, model: ModelProto) -> None:
        self._index = graph.index_qdq(model)
        public = graph.public_names(model, self._index)
        self._maker = {name: node for node in model.graph.node for name in node.output}
        self._readers: dict[str, list[NodeProto]] = {}
        for node in model.graph.node:
            for name in node.input:
                self._readers.setdefault(name, []).append(node)
        quantizers = [node for node in model.graph.node if node.op_type == "QuantizeLinear"]
        self._rounded: dict[str, str] = {node.input[0]: public.get(node.input[0], node.input[0]) for node in quantizers}
        self._rounded |= {node.output[0]: self._rounded[node.input[0]] for node in quantizers}

    def operator(self, origin: str) -> NodeProto | None:
        """Return the ONNX operator that writes a tensor."""
        return self._maker.get(origin)

    def rounded(self, origin: str) -> str | None:
        """Return the table's name of what an operator writes, behind the clamp that is fused into it."""
        if origin in self._rounded:
            return self._rounded[origin]
        readers = self._readers.get(origin, [])
        is_fused = len(readers) == 1 and readers[0].op_type in _CLAMPS
        return self.rounded(readers[0].output[0]) if is_fused else None

    def weight(self, layer: NodeProto) -> str | None:
        """Return the int8 weight of a layer."""
        found = self._index.weights.get(layer.input[1])
        return str(found.input[0]) if found is not None else None
