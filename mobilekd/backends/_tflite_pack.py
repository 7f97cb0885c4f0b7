"""Parts of a TFLite flatbuffer that the schema's own Python writer packs badly; each stands in for a schema object."""

from typing import Any

import numpy as np

_ALIGNMENT_BYTES = 16  # `force_align: 16` of Buffer.data in schema.fbs, which the Python writer does not follow


class AlignedBuffer:
    """A `BufferT` whose data starts on a 16-byte border, as the kernels' vector loads like it."""

    offset = 0
    size = 0

    def __init__(self, data: Any) -> None:
        self.data = data

    def Pack(self, builder: Any) -> Any:  # noqa: N802 (the schema's own name)
        """Write the buffer; return its offset."""
        from ai_edge_litert import schema_py_generated as schema

        packed = None if self.data is None else _vector(builder, bytes(self.data), 1, _ALIGNMENT_BYTES)
        schema.BufferStart(builder)
        if packed is not None:
            schema.BufferAddData(builder, packed)
        return schema.BufferEnd(builder)


class SharedQuantization:
    """A `QuantizationParametersT` whose vectors are written once for all tensors that have equal ones.

    A zero point is 8 bytes a channel, always 0 for weights and biases: 100 KB
    of a MobileNetV4-small of width 0.5, 9 % of its int8 file.
    """

    def __init__(self, quantization: Any, written: dict[bytes, int]) -> None:
        self._quantization = quantization
        self._written = written

    def Pack(self, builder: Any) -> Any:  # noqa: N802 (the schema's own name)
        """Write the parameters; return their offset."""
        from ai_edge_litert import schema_py_generated as schema

        scale = self._shared(builder, self._quantization.scale, np.dtype("<f4"))
        zero_point = self._shared(builder, self._quantization.zeroPoint, np.dtype("<i8"))
        schema.QuantizationParametersStart(builder)
        if scale is not None:
            schema.QuantizationParametersAddScale(builder, scale)
        if zero_point is not None:
            schema.QuantizationParametersAddZeroPoint(builder, zero_point)
        schema.QuantizationParametersAddQuantizedDimension(builder, self._quantization.quantizedDimension)
        return schema.QuantizationParametersEnd(builder)

    def _shared(self, builder: Any, values: Any, dtype: np.dtype[Any]) -> int | None:
        if values is None:
            return None
        data = np.asarray(values, dtype).tobytes()
        key = dtype.str.encode() + data
        if key not in self._written:
            self._written[key] = _vector(builder, data, dtype.itemsize, dtype.itemsize)
        return self._written[key]


def _vector(builder: Any, data: bytes, item_bytes: int, alignment_bytes: int) -> int:
    builder.StartVector(item_bytes, len(data) // item_bytes, alignment_bytes)
    builder.head = builder.head - len(data)
    builder.Bytes[builder.head : builder.head + len(data)] = data
    return int(builder.EndVector())
