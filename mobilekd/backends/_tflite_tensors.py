"""The tensors of a TFLite file while it is written: in which type and layout each ONNX tensor is there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobilekd.backends import _tflite_layout as layout
from mobilekd.backends._tflite_layout import Axes
from mobilekd.backends._tflite_model import ModelBuilder, Option, Quant
from mobilekd.backends._tflite_source import QUANTIZE, Source

Array = NDArray[Any]
REAL, UNROUNDED = "_dequantized", "_unrounded"


@dataclass(frozen=True, slots=True)
class Value:
    """A tensor of the file, and how the ONNX tensor lies in it."""

    index: int
    axes: Axes


class Tensors:
    """The tensors of the file that is being written, found by the ONNX tensor, type and layout."""

    def __init__(self, source: Source, *, half_weights: bool) -> None:
        self.source = source
        self.builder = ModelBuilder()
        self.axes: dict[str, Axes] = {}
        self.half_weights = half_weights
        self._values: dict[tuple[str, str, Axes], int] = {}

    def name_of(self, key: str, dtype: str) -> str:
        """Return the name of a tensor in the file: the rounded one has the name of the ONNX tensor."""
        if key in self.source.rounded:
            return self.source.rounded[key].name + ("" if dtype == "int8" else REAL)
        is_rounded = any(reader.op == QUANTIZE for reader in self.source.readers(key))
        return key + UNROUNDED if is_rounded else key

    def define(self, key: str, dtype: str, index: int, axes: Axes) -> None:
        """Say that a tensor of the file holds an ONNX tensor."""
        self.axes.setdefault(key, axes)
        self._values[key, dtype, axes] = index

    def has(self, key: str, dtype: str) -> bool:
        """Return whether a tensor has been written in a type, in its own layout."""
        return key in self.axes and (key, dtype, self.axes[key]) in self._values

    def read(self, key: str, dtype: str, axes: Axes | None = None) -> Value:
        """Return a tensor in a type and a layout; converts it once, at the first reader."""
        own = self.axes[key]
        wanted = axes or own
        if (key, dtype, wanted) not in self._values:
            if dtype != "int8" and key in self.source.rounded:
                index = self._dequantize(key, self.read(key, "int8", wanted), wanted)
            else:
                index = self._relayout(key, dtype, wanted)
            self._values[key, dtype, wanted] = index
        return Value(self._values[key, dtype, wanted], wanted)

    def constant(self, name: str, data: Array, quant: Quant | None = None) -> int:
        """Return a constant of the file."""
        return self.builder.add_constant(name, data, quant)

    def shape_of(self, index: int) -> tuple[int, ...]:
        """Return the shape of a tensor of the file."""
        return self.builder.tensors[index].shape

    def shape_constant(self, shape: Sequence[int]) -> int:
        """Return a constant of sizes or axes."""
        return self.constant("mobilekd/" + "x".join(map(str, shape)), np.asarray(shape, np.int32))

    def emit(
        self,
        kind: str,
        inputs: Sequence[int],
        name: str,
        shape: Sequence[int],
        dtype: str,
        *,
        quant: Quant | None = None,
        options: Mapping[str, Option] | None = None,
    ) -> int:
        """Add an operator of one new tensor; return the tensor."""
        index = self.builder.add_tensor(name, shape, dtype, quant)
        self.builder.add_op(kind, inputs, [index], options)
        return index

    def requantize(self, index: int, name: str, quant: Quant) -> int:
        """Return an int8 tensor at another scale: the sum with 0, which all kernel sets round once, as training does.

        XNNPACK's QUANTIZE from int8 to int8 is one step off for 4 % of values (LiteRT 2.3.0).
        """
        tensor = self.builder.tensors[index]
        assert tensor.quant is not None
        zero = self.constant("mobilekd/zero", np.zeros((), np.int8), Quant(tensor.quant.scale))
        return self.emit("ADD", [index, zero], name, tensor.shape, "int8", quant=quant)

    def _dequantize(self, key: str, value: Value, axes: Axes) -> int:
        shape = layout.stored(self.source.shape(key), axes)
        return self.emit("DEQUANTIZE", [value.index], self.name_of(key, "float32"), shape, "float32")

    def _relayout(self, key: str, dtype: str, axes: Axes) -> int:
        own = self.axes[key]
        value = self.read(key, dtype, own)
        tensor = self.builder.tensors[value.index]
        return self.move(value.index, layout.permutation(own, axes), f"{tensor.name}/{'x'.join(map(str, axes))}")

    def move(self, index: int, order: Axes, name: str) -> int:
        """Return a tensor with its dimensions in another order; a RESHAPE where only those of size 1 move."""
        tensor = self.builder.tensors[index]
        moved = tuple(tensor.shape[at] for at in order)
        if [at for at in order if tensor.shape[at] != 1] == sorted(at for at in order if tensor.shape[at] != 1):
            return self.reshape(index, name, moved)
        inputs = [index, self.shape_constant(order)]
        return self.emit("TRANSPOSE", inputs, name, moved, tensor.dtype, quant=tensor.quant)

    def reshape(self, index: int, name: str, shape: Sequence[int]) -> int:
        """Return a tensor with other dimensions."""
        tensor = self.builder.tensors[index]
        inputs, options = [index, self.shape_constant(shape)], {"newShape": list(shape)}
        return self.emit("RESHAPE", inputs, name, shape, tensor.dtype, quant=tensor.quant, options=options)
