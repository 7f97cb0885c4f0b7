"""A TensorRT network parsed from ONNX: what its layers read, held against the quantization table.

An engine is opaque, the network given to its builder is not: strongly typed networks keep the types that they are
given, so a convolution between int8 DEQUANTIZE layers can't become a float one.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobilekd.backends._readback import ReadBack, Trained
from mobilekd.errors import StageError
from mobilekd.quant_table import QuantTable

_WEIGHTED = ("CONVOLUTION", "DECONVOLUTION", "MATRIX_MULTIPLY")
_FUSED_BEHIND = ("ACTIVATION", "ELEMENTWISE", "QUANTIZE")
_FUSED_BEFORE = ("DEQUANTIZE", "CONSTANT", "SHUFFLE", "ACTIVATION", "ELEMENTWISE", *_WEIGHTED)
_MOVES = ("CONCATENATION", "GATHER", "IDENTITY", "SHUFFLE", "SLICE", "SQUEEZE", "UNSQUEEZE")
_NO_ARITHMETIC = ("CONSTANT", "QUANTIZE", "DEQUANTIZE", "CAST", "SHAPE", *_MOVES)


@dataclass(frozen=True, slots=True)
class Network:
    """A parsed network; the builder, parser and logger live as long as it does.

    Attributes:
        trt: The module `tensorrt` or `tensorrt_rtx`.
        definition: INetworkDefinition.
        builder: IBuilder that made it.
        keep: What the definition points into.
    """

    trt: Any
    definition: Any
    builder: Any
    keep: tuple[object, ...]

    def layers(self) -> Iterator[Any]:
        """Yield the layers in graph order."""
        return (self.definition.get_layer(at) for at in range(self.definition.num_layers))

    def kind(self, layer: Any) -> str:
        """Return a layer's type, as "CONVOLUTION"."""
        return str(layer.type).rpartition(".")[2]


def parse(trt: Any, model: Path, log: Path) -> Network:
    """Parse an ONNX file to a strongly typed network.

    Raises:
        StageError: The parser refused; the message has its text and the node.
    """
    logger = _logger(trt, log)
    builder = trt.Builder(logger)
    definition = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(definition, logger)
    if not parser.parse(model.read_bytes()):
        errors = [parser.get_error(at) for at in range(parser.num_errors)]
        told = "\n".join(f"    {one.node_operator()} {one.node_name()!r}: {one.desc()}" for one in errors)
        raise StageError(
            f"TensorRT's parser refused {model.name}\n{told}", hint=f"the whole log: {log}", code="MKD-421"
        )
    return Network(trt, definition, builder, (logger, parser))


def _logger(trt: Any, log: Path) -> Any:
    """Return a logger that appends to a file: the default one writes on the user's screen."""

    class FileLogger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity <= trt.ILogger.Severity.WARNING:
                with log.open("a", encoding="utf-8") as stream:
                    stream.write(f"{str(severity).rpartition('.')[2]} {message}\n")

    log.parent.mkdir(parents=True, exist_ok=True)
    return FileLogger()


def float_layers(network: Network) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return names of convolution and matmul layers without int8 inputs; then "TYPE name" of other float layers.

    The builder fuses what stands between DEQUANTIZE and QUANTIZE to one kernel. A layer that is not in such a chain
    counts as float.
    """
    makers, readers = _edges(network)
    floats = (network.trt.DataType.FLOAT, network.trt.DataType.HALF)  # the rest computes shapes
    layers, others = [], []
    for layer in network.layers():
        kind = network.kind(layer)
        if kind in _WEIGHTED:
            if not all(_is_int8(network, makers, layer, at) for at in (0, 1)):
                layers.append(layer.name)
        elif kind not in _NO_ARITHMETIC and layer.get_output(0).dtype in floats:
            before = {network.kind(makers[one.name]) if one.name in makers else "" for one in _inputs(layer)}
            behind = {network.kind(one) for one in readers.get(layer.get_output(0).name, ())}
            if not (before <= set(_FUSED_BEFORE) and behind and behind <= set(_FUSED_BEHIND)):
                others.append(f"{kind} {layer.name}")
    return tuple(layers), tuple(others)


def _edges(network: Network) -> tuple[dict[str, Any], dict[str, list[Any]]]:
    makers: dict[str, Any] = {}
    readers: dict[str, list[Any]] = {}
    for layer in network.layers():
        makers.update({layer.get_output(at).name: layer for at in range(layer.num_outputs)})
        for one in _inputs(layer):
            readers.setdefault(one.name, []).append(layer)
    return makers, readers


def _inputs(layer: Any) -> list[Any]:
    tensors = (layer.get_input(at) for at in range(layer.num_inputs))
    return [tensor for tensor in tensors if tensor is not None]


def _is_int8(network: Network, makers: Mapping[str, Any], layer: Any, at: int) -> bool:
    """Return True if one input of a layer comes from int8, with nothing but a reshape between."""
    tensor = layer.get_input(at) if at < layer.num_inputs else None
    maker = makers.get(tensor.name) if tensor is not None else None
    while maker is not None and network.kind(maker) == "SHUFFLE":
        maker = makers.get(maker.get_input(0).name)
    is_dequantized = maker is not None and network.kind(maker) == "DEQUANTIZE"
    return is_dequantized and maker is not None and maker.get_input(0).dtype == network.trt.DataType.INT8


@dataclass(frozen=True, slots=True)
class Names:
    """How the table calls what a network calls otherwise.

    Attributes:
        public: Tensor that is rounded into a graph output -> that output.
        bias: Layer -> its bias, where the layer keeps it.
    """

    public: Mapping[str, str]
    bias: Mapping[str, str]


def check_against_table(path: Path, network: Network, table: QuantTable, trained: Trained, names: Names) -> None:
    """Compare every scale, int8 weight and bias of a network with the table.

    Args:
        path: The file, for messages.
        network: A parsed int8 network.
        table: The quantization table.
        trained: Weights and biases.
        names: Names of the network that the table has not.

    Raises:
        StageError: Names the first tensor that differs or is missing.
    """
    makers, _ = _edges(network)
    found = ReadBack(path, table, trained)
    for layer in network.layers():
        kind = network.kind(layer)
        if kind in ("CONVOLUTION", "DECONVOLUTION") and layer.name in names.bias:
            is_transposed = kind == "DECONVOLUTION"
            layer.__class__ = network.trt.IDeconvolutionLayer if is_transposed else network.trt.IConvolutionLayer
            found.biases(names.bias[layer.name], np.array(layer.bias))
        elif kind == "CONSTANT" and layer.name in trained.biases:
            found.biases(layer.name, _constant(network, makers, layer.get_output(0)))
        elif kind in ("QUANTIZE", "DEQUANTIZE"):
            _check_scale(network, makers, layer, names, found)
    found.finish(table.by_name().keys())


def _check_scale(network: Network, makers: Mapping[str, Any], layer: Any, names: Names, found: ReadBack) -> None:
    source = layer.get_input(0).name
    maker = makers.get(source)
    is_constant = maker is not None and network.kind(maker) == "CONSTANT"
    scale = _constant(network, makers, layer.get_input(1))
    if network.kind(layer) == "QUANTIZE":
        name = maker.name if is_constant and maker is not None else source
        found.scales(names.public.get(name, name), scale, {0})
    elif is_constant and maker is not None:
        found.scales(maker.name, scale, {0})
        found.weights(maker.name, _constant(network, makers, layer.get_input(0)))


def _constant(network: Network, makers: Mapping[str, Any], tensor: Any) -> NDArray[Any]:
    layer = makers[tensor.name]
    layer.__class__ = network.trt.IConstantLayer  # TensorRT's own way to reach a layer's fields from Python
    return np.array(layer.weights)
