"""From an ONNX file to a TFLite file: the edges of the graph, and what a trace must know of its tensors."""

import json
from pathlib import Path

import onnx

from mobilekd.backends import _tflite_layout as layout
from mobilekd.backends._tflite_graph import LAYOUT, QUANTIZED
from mobilekd.backends._tflite_lower import Lowering
from mobilekd.backends._tflite_patterns import gather_patterns
from mobilekd.backends._tflite_rules import RULES
from mobilekd.backends._tflite_source import QUANTIZE, Source
from mobilekd.backends._tflite_tensors import Tensors
from mobilekd.errors import StageError


def write(source_onnx: Path, result: Path, *, io: str, half_weights: bool) -> None:
    """Write a TFLite file of an ONNX graph, int8 where the graph has Q/DQ pairs.

    Args:
        source_onnx: Fixed input of batch 1; one input, one output.
        result: The file to write.
        io: "float32" or "int8": the type of the file's own input and output.
        half_weights: Store the weights of convolutions and linear layers as float16.

    Raises:
        StageError: An operator has no TFLite form, or io is int8 and an edge is not quantized.
    """
    source = Source(onnx.load(str(source_onnx)))
    gather_patterns(source)
    tensors = Tensors(source, half_weights=half_weights)
    enter = _enter(tensors, io)
    Lowering(tensors, RULES).run()
    leave = _leave(tensors, io)
    result.write_bytes(tensors.builder.finish([enter], [leave], {LAYOUT: _layout(tensors)}))


def _enter(tensors: Tensors, io: str) -> int:
    """Add the input of the file: NHWC, float32 or int8."""
    source, builder = tensors.source, tensors.builder
    shape = source.shape(source.input)
    axes = layout.usual(len(shape))
    stored = layout.stored(shape, axes)
    keys = [node.outputs[0] for node in source.readers(source.input) if node.op == QUANTIZE]
    if io == "int8":
        _need_int8(is_quantized=bool(keys) and len(keys) == len(source.readers(source.input)), name=source.input)
        index = builder.add_tensor(source.input, stored, "int8", source.rounded[keys[0]].quant)
        for key in keys:
            tensors.define(key, "int8", index, axes)
        return index
    index = builder.add_tensor(source.input, stored, "float32")
    tensors.define(source.input, "float32", index, axes)
    for key in keys:
        quant = source.rounded[key].quant
        rounded = tensors.emit("QUANTIZE", [index], source.input + QUANTIZED, stored, "int8", quant=quant)
        tensors.define(key, "int8", rounded, axes)
    return index


def _leave(tensors: Tensors, io: str) -> int:
    """Return the output of the file, as in ONNX."""
    source, builder = tensors.source, tensors.builder
    axes = layout.identity(len(source.shape(source.output)))
    is_quantized = source.output in source.rounded
    if io == "int8":
        _need_int8(is_quantized=is_quantized, name=source.output_name)
        index = tensors.read(source.output, "int8", axes).index
        builder.rename(index, source.output_name)
        return index
    if is_quantized:
        rounded = tensors.read(source.output, "int8", axes).index
        builder.rename(rounded, source.output_name + QUANTIZED)
    index = tensors.read(source.output, "float32", axes).index
    builder.rename(index, source.output_name)
    return index


def _need_int8(*, is_quantized: bool, name: str) -> None:
    if not is_quantized:
        raise StageError(
            f"io = int8, but {name!r} is not quantized on its own",
            hint='set io = "float32", or quantize the first and the last layer',
            code="MKD-420",
        )


def _layout(tensors: Tensors) -> bytes:
    """Return the tensors of the ONNX graph that have another name in the file, or do not lie as usual."""
    source, written = tensors.source, tensors.builder.tensors
    found: dict[str, tuple[str, tuple[int, ...]]] = {}
    for key, axes in tensors.axes.items():
        dtype = "int8" if key in source.rounded else "float32"
        name = source.rounded[key].name if key in source.rounded else key
        if not tensors.has(key, dtype) or (key not in source.rounded and name in found):
            continue
        made = written[tensors.read(key, dtype).index].name
        found[name] = (name if made == name + QUANTIZED else made, axes)
    public = source.output_name
    found[public] = (public, layout.identity(len(source.shape(source.output))))
    unusual = {name: value for name, value in found.items() if value != (name, layout.usual(len(value[1])))}
    return json.dumps(unusual, separators=(",", ":"), sort_keys=True).encode()
