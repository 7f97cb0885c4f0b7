"""TFLite metadata: what an app's tools (ML Kit, Task Library, Android Studio) read out of a model file itself.

The metadata is a flatbuffer of its own (metadata_schema.fbs, identifier M001) in a buffer of the model, and a zip of
the labels behind the model's flatbuffer. Slots below are those of the public schema.
"""

import io
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mobilekd.backends import _tflite_graph as tfl
from mobilekd.errors import StageError

METADATA = "TFLITE_METADATA"
IDENTIFIER = b"M001"
LABELS = "labels.txt"
MIN_PARSER_VERSION = "1.0.0"  # every field written here is in the schema's first version
_MODEL_IDENTIFIER = b"TFL3"
_ALIGNMENT_BYTES = 16  # kernels read weights with vector loads, from a file that is mapped as it lies
_COLOR_SPACES = {3: 1, 1: 2}  # RGB and GRAYSCALE, by channels
_IMAGE_PROPERTIES, _FEATURE_PROPERTIES, _NORMALIZATION, _TENSOR_AXIS_LABELS = 2, 1, 1, 2

Slot = tuple[Callable[[int, int, int], None], int]


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What the metadata says of a model.

    Attributes:
        name, description, licence: In words; an empty one is left out.
        labels: One a class, in the order of the logits, without line breaks.
        mean, std: Per channel, of pixels from 0 to 1, as the data set has them.
        height, width: Of the input, in pixels.
    """

    name: str
    description: str
    licence: str
    labels: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    height: int
    width: int


def is_tflite(content: bytes) -> bool:
    """Return whether a file is a TFLite model."""
    return content[4:8] == _MODEL_IDENTIFIER


def with_metadata(content: bytes, card: ModelCard) -> bytes:
    """Return a model with its card inside; its graph and its weights are those of the model given.

    Equal models and cards give equal bytes.

    Args:
        content: A .tflite file with one input and one output.
        card: What the metadata says.

    Raises:
        StageError: The model already has metadata, or did not come through unchanged.
    """
    model = _read(content)
    if any(entry.name.decode() == METADATA for entry in model.metadata or ()):
        raise StageError(f"the model already has {METADATA}")
    before = tfl.view(model)
    _append(model, METADATA, metadata(card))
    packed = tfl.pack_model(model)
    if unaligned := _unaligned_buffers(packed):
        raise StageError(f"{unaligned} weight buffers of the model with metadata are not on a 16-byte border")
    if not _same_graph(before, tfl.view(_read(packed))):
        raise StageError("the model with metadata is another graph than the one without")
    return _with_zip(packed, {LABELS: "".join(f"{label}\n" for label in card.labels)})


def metadata(card: ModelCard) -> bytes:
    """Return the flatbuffer of a card.

    Mean and std are those of pixels from 0 to 255, as the field's tools count: (pixel - mean) / std.
    """
    import flatbuffers

    builder = flatbuffers.Builder(1024)
    subgraph = _table(
        builder,
        {2: _ref(builder, _tables(builder, [_input(builder, card)]))}
        | {3: _ref(builder, _tables(builder, [_output(builder, card)]))},
    )
    subgraphs = _tables(builder, [subgraph])
    slots = {3: _ref(builder, subgraphs), 7: _text(builder, MIN_PARSER_VERSION)}
    words = {0: card.name, 1: card.description, 5: card.licence}
    slots |= {slot: _text(builder, text) for slot, text in words.items() if text}
    builder.Finish(_table(builder, slots), file_identifier=IDENTIFIER)
    return bytes(builder.Output())


def _input(builder: Any, card: ModelCard) -> int:
    mean, std = np.asarray(card.mean), np.asarray(card.std)
    options = {0: _floats(builder, 255 * mean), 1: _floats(builder, 255 * std)}
    normalize = {0: (builder.PrependUint8Slot, _NORMALIZATION), 1: _ref(builder, _table(builder, options))}
    units = _tables(builder, [_table(builder, normalize)])
    size = {0: (builder.PrependUint32Slot, card.width), 1: (builder.PrependUint32Slot, card.height)}
    image = {
        0: (builder.PrependInt8Slot, _COLOR_SPACES.get(len(card.mean), 0)),
        1: _ref(builder, _table(builder, size)),
    }
    content = _content(builder, _IMAGE_PROPERTIES, image)
    highest, lowest = (1 - mean) / std, (0 - mean) / std
    stats = _table(builder, {0: _floats(builder, highest), 1: _floats(builder, lowest)})
    slots = {0: _text(builder, "image"), 1: _text(builder, "pixels, normalised: (pixel - mean) / std")}
    slots |= {3: _ref(builder, content), 4: _ref(builder, units), 5: _ref(builder, stats)}
    return _table(builder, slots)


def _output(builder: Any, card: ModelCard) -> int:
    file = {0: _text(builder, LABELS), 1: _text(builder, "one label a line, in the order of the logits")}
    files = _tables(builder, [_table(builder, file | {2: (builder.PrependInt8Slot, _TENSOR_AXIS_LABELS)})])
    content = _content(builder, _FEATURE_PROPERTIES, {})
    slots = {0: _text(builder, "logits"), 1: _text(builder, f"{len(card.labels)} logits; softmax gives probabilities")}
    return _table(builder, slots | {3: _ref(builder, content), 6: _ref(builder, files)})


def _content(builder: Any, kind: int, properties: Mapping[int, Slot]) -> int:
    made = _ref(builder, _table(builder, properties))
    return _table(builder, {0: (builder.PrependUint8Slot, kind), 1: made})


def _table(builder: Any, slots: Mapping[int, Slot]) -> int:
    """Write a table of {slot: (how its value is written, value)}; return its offset."""
    builder.StartObject(max(slots, default=-1) + 1)
    for slot, (put, value) in slots.items():
        put(slot, value, 0)
    return int(builder.EndObject())


def _ref(builder: Any, offset: int) -> Slot:
    return builder.PrependUOffsetTRelativeSlot, offset


def _text(builder: Any, text: str) -> Slot:
    return _ref(builder, builder.CreateString(text))


def _floats(builder: Any, values: Any) -> Slot:
    return _ref(builder, builder.CreateNumpyVector(values.astype(np.float32)))


def _tables(builder: Any, offsets: Sequence[int]) -> int:
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return int(builder.EndVector())


def _append(model: Any, name: str, content: bytes) -> None:
    from ai_edge_litert import schema_py_generated as schema

    buffer, entry = schema.BufferT(), schema.MetadataT()
    buffer.data = np.frombuffer(content, np.uint8)
    entry.name, entry.buffer = name, len(model.buffers)
    model.buffers.append(buffer)
    model.metadata = [*(model.metadata or ()), entry]


def _with_zip(packed: bytes, files: Mapping[str, str]) -> bytes:
    """Return the model with stored files behind it; their time is fixed, so that equal files give equal bytes."""
    out = io.BytesIO(packed)
    with zipfile.ZipFile(out, "a", zipfile.ZIP_STORED) as archive:
        for name, text in files.items():
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            entry.create_system, entry.external_attr = 3, 0o644 << 16
            archive.writestr(entry, text.encode())
    return out.getvalue()


def _read(content: bytes) -> Any:
    from ai_edge_litert.tools import flatbuffer_utils

    return flatbuffer_utils.read_model_from_bytearray(bytearray(content))


def _unaligned_buffers(packed: bytes) -> int:
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAsModel(packed, 0)
    tables = [model.Buffers(index)._tab for index in range(model.BuffersLength())]
    starts = [table.Vector(field) for table in tables if (field := table.Offset(4))]
    return sum(start % _ALIGNMENT_BYTES != 0 for start in starts)


def _same_graph(before: tfl.Graph, after: tfl.Graph) -> bool:
    edges = (before.ops, before.inputs, before.outputs, before.layout)
    return (
        edges == (after.ops, after.inputs, after.outputs, after.layout)
        and len(before.tensors) == len(after.tensors)
        and all(_same_tensor(*pair) for pair in zip(before.tensors, after.tensors, strict=True))
    )


def _same_tensor(one: tfl.Tensor, other: tfl.Tensor) -> bool:
    def facts(tensor: tfl.Tensor) -> tuple[object, ...]:
        data = None if tensor.data is None else tensor.data.tobytes()
        return tensor.name, tensor.dtype, tensor.shape, tensor.scale, tensor.zero_point, tensor.axis, data

    return facts(one) == facts(other)
