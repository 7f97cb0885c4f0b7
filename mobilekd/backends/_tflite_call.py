"""One ONNX node while it is written: int8 or float, what it reads, and where its result goes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobilekd.backends import _tflite_layout as layout
from mobilekd.backends._tflite_layout import Axes
from mobilekd.backends._tflite_model import Option, Quant
from mobilekd.backends._tflite_source import QUANTIZE, Node, Rounded, Source
from mobilekd.backends._tflite_tensors import Tensors, Value
from mobilekd.errors import StageError

Array = NDArray[Any]
Clamp = tuple[float, float]
_ACTIVATIONS: Mapping[Clamp, int] = {(0.0, np.inf): 1, (-1.0, 1.0): 2, (0.0, 6.0): 3}  # ActivationFunctionType


@dataclass(frozen=True, slots=True)
class Sink:
    """Where the result of a node goes: the tensor behind its fused clamp, and the QuantizeLinears that read it."""

    tail: str
    clamp: Clamp | None
    rounded: tuple[str, ...]
    quant: Quant | None


@dataclass(frozen=True, slots=True)
class Rule:
    """How one ONNX operator is written.

    Attributes:
        emit: Writes it.
        int8: Whether its int8 kernel gives the rounded real result; None: never.
        fuses: Whether a Relu or Clip behind it is part of it; None: never.
        moves: Whether it only moves values of its first input: then int8 values stay what they are, rounded or not.
    """

    emit: "Callable[[Call], None]"
    int8: "Callable[[Call], bool] | None" = None
    fuses: "Callable[[Source, Node], bool] | None" = None
    moves: bool = False


class Call:
    """One ONNX node while it is written.

    Attributes:
        sinks: One for each output.
        is_int8: Whether it is written in int8.
    """

    def __init__(self, tensors: Tensors, node: Node, rule: Rule) -> None:
        self.tensors = tensors
        self.node = node
        self.source = tensors.source
        self.flowing = tuple(name for name in node.inputs if name and not self.source.is_constant(name))
        outputs, fuses = (
            [name for name in node.outputs if name],
            rule.fuses is not None and rule.fuses(self.source, node),
        )
        self.sinks = tuple(_sink(self.source, name, fuses) for name in outputs)
        reads_int8 = bool(self.flowing) and all(name in self.source.rounded for name in self.flowing)
        has_kernel = reads_int8 and rule.int8 is not None and rule.int8(self)
        if has_kernel and rule.moves and len(self.flowing) == 1:
            self.sinks = tuple(self._stays_rounded(sink) for sink in self.sinks)
        self.is_int8 = has_kernel and all(sink.quant is not None for sink in self.sinks)
        if not self.is_int8:
            fused = [fuses and sink.clamp in _ACTIVATIONS for sink in self.sinks]
            self.sinks = tuple(_sink(self.source, *one) for one in zip(outputs, fused, strict=True))

    def _stays_rounded(self, sink: Sink) -> Sink:
        """Return a sink at the scale of the input for values that only move, where no QuantizeLinear gives another."""
        if sink.quant is not None:
            return sink
        quant = self.source.rounded[self.flowing[0]].quant
        self.source.rounded[sink.tail] = Rounded(sink.tail, quant)
        return Sink(sink.tail, None, (sink.tail,), quant)

    @property
    def dtype(self) -> str:
        """The type of what flows in and out."""
        return "int8" if self.is_int8 else "float32"

    def quant(self, position: int) -> Quant:
        """Return the scale and zero point of an input that flows in int8."""
        return self.source.rounded[self.node.inputs[position]].quant

    def has(self, position: int) -> bool:
        """Return whether an optional input is given."""
        return len(self.node.inputs) > position and bool(self.node.inputs[position])

    def shape(self, position: int = 0) -> tuple[int, ...]:
        """Return the ONNX shape of an input."""
        return self.source.shape(self.node.inputs[position])

    def out_shape(self, output: int = 0) -> tuple[int, ...]:
        """Return the ONNX shape of an output."""
        return self.source.shape(self.node.outputs[output])

    def constant(self, position: int) -> Array | None:
        """Return the values of an input that is a constant; None where it flows or is absent."""
        return self.source.constant(self.node.inputs[position]) if self.has(position) else None

    def need_constant(self, position: int, what: str) -> Array:
        """Return the values of an input.

        Raises:
            StageError: It is no constant.
        """
        value = self.constant(position)
        if value is None:
            raise StageError(
                f"{self.node.op} {self.node.name}: {what} must be a constant of the ONNX graph", code="MKD-420"
            )
        return value

    def axes(self, position: int = 0) -> Axes:
        """Return how an input lies; a constant lies as in ONNX."""
        name = self.node.inputs[position]
        return self.tensors.axes.get(name, layout.identity(len(self.source.shape(name))))

    def read(self, position: int = 0, axes: Axes | None = None) -> Value:
        """Return an input in the type of this call, in a layout or in its own."""
        name = self.node.inputs[position]
        data = self.source.constant(name)
        if data is None:
            return self.tensors.read(name, self.dtype, axes)
        wanted = axes or layout.identity(data.ndim)
        return Value(self.tensors.constant(name, data.astype(np.float32).transpose(wanted)), wanted)

    def name(self, part: str) -> str:
        """Return a name for a tensor that the ONNX graph does not have."""
        return f"{self.sinks[0].tail}/{part}"

    def emit(
        self,
        kind: str,
        inputs: Sequence[int],
        part: str,
        shape: Sequence[int],
        *,
        quant: Quant | None = None,
        options: Mapping[str, Option] | None = None,
    ) -> int:
        """Add an operator on the way to the result; return its tensor."""
        return self.tensors.emit(kind, inputs, self.name(part), shape, self.dtype, quant=quant, options=options)

    def finish(
        self,
        kind: str,
        inputs: Sequence[int],
        axes: Axes,
        *,
        quant: Quant | None = None,
        options: Mapping[str, Option] | None = None,
        output: int = 0,
    ) -> None:
        """Add the operator that writes an output.

        Args:
            kind: The TFLite operator.
            inputs: Tensors of the file.
            axes: How the result lies.
            quant: The scale that the kernel keeps, when it can't change it; then it is changed after.
            options: The operator's own.
            output: Which output.
        """
        sink, shape = self.sinks[output], layout.stored(self.out_shape(output), axes)
        code = None if sink.clamp is None else _ACTIVATIONS.get(sink.clamp)
        fused = {} if code is None else {"fusedActivationFunction": code}
        merged = {**(options or {}), **fused}
        if not self.is_int8:
            name = self.tensors.name_of(sink.tail, "float32")
            self._define(sink, self.tensors.emit(kind, inputs, name, shape, "float32", options=merged), axes)
            return
        assert sink.quant is not None
        kept = sink.quant if quant is None else quant
        is_last = kept == sink.quant and not _later_clamps(sink)
        name = self.tensors.name_of(sink.rounded[0], "int8")
        made = self.tensors.emit(
            kind, inputs, name if is_last else f"{name}/unscaled", shape, "int8", quant=kept, options=merged
        )
        self._define(sink, made if is_last else self._settle(made, name, sink, _later_clamps(sink)), axes)

    def alias(self, index: int, axes: Axes, *, quant: Quant | None = None) -> None:
        """Let a tensor that is there be the output, at another scale where the two differ."""
        sink = self.sinks[0]
        if self.is_int8 and quant != sink.quant:
            index = self._settle(index, self.tensors.name_of(sink.rounded[0], "int8"), sink, ())
        self._define(sink, index, axes)

    def clamp(self, value: Value, bounds: Clamp) -> None:
        """Let an int8 tensor, rounded to the scale of the result and clamped there, be the output."""
        sink = self.sinks[0]
        assert sink.quant is not None
        name, clamps = self.tensors.name_of(sink.rounded[0], "int8"), _integer_clamps(bounds, sink.quant)
        self._define(sink, self._settle(value.index, name, sink, clamps), value.axes)

    def _settle(self, index: int, name: str, sink: Sink, clamps: Sequence[tuple[str, int]]) -> int:
        """Return an int8 tensor at the scale of a sink, clamped after rounding, which commutes with it."""
        builder = self.tensors.builder
        assert sink.quant is not None
        if builder.tensors[index].quant != sink.quant:
            index = self.tensors.requantize(index, name if not clamps else f"{name}/unclamped", sink.quant)
        for at, (kind, bound) in enumerate(clamps, 1):
            limit = self.tensors.constant("mobilekd/limit", np.array(bound, np.int8), sink.quant)
            made = name if at == len(clamps) else f"{name}/{kind.lower()}"
            shape = builder.tensors[index].shape
            index = self.tensors.emit(kind, [index, limit], made, shape, "int8", quant=sink.quant)
        return index

    def _define(self, sink: Sink, index: int, axes: Axes) -> None:
        if not self.is_int8:
            self.tensors.define(sink.tail, "float32", index, axes)
        for key in sink.rounded if self.is_int8 else ():
            self.tensors.define(key, "int8", index, axes)


def _later_clamps(sink: Sink) -> list[tuple[str, int]]:
    """Return what a clamp that no kernel fuses comes to in int8."""
    if sink.clamp is None or sink.clamp in _ACTIVATIONS or sink.quant is None:
        return []
    return _integer_clamps(sink.clamp, sink.quant)


def _integer_clamps(clamp: Clamp, quant: Quant) -> list[tuple[str, int]]:
    """Return MAXIMUM and MINIMUM with the integers of a clamp's bounds; those that int8 has anyway are left out."""
    scale = np.float32(quant.scale[0])
    low, high = (float(np.clip(np.rint(np.float32(bound) / scale) + quant.zero_point, -128, 127)) for bound in clamp)
    wanted = [("MAXIMUM", int(low))] if low > -128 else []
    return wanted + ([("MINIMUM", int(high))] if high < 127 else [])


def clamp_of(source: Source, node: Node) -> Clamp | None:
    """Return the bounds of a Relu or of a Clip by constants; None for another operator."""
    if node.op == "Relu":
        return (0.0, np.inf)
    if node.op != "Clip":
        return None
    names = [*node.inputs[1:], "", ""][:2]
    bounds = [
        source.constant(name) if name else default for name, default in zip(names, (-np.inf, np.inf), strict=True)
    ]
    if any(bound is None for bound in bounds):
        return None
    low, high = (float(np.asarray(bound).reshape(())) for bound in bounds)
    return (low, high)


def fuses_always(source: Source, node: Node) -> bool:
    """Return True: the operator has a fused activation."""
    del source, node
    return True


def _sink(source: Source, name: str, fuses: bool) -> Sink:  # noqa: FBT001
    readers = source.readers(name)
    clamp = clamp_of(source, readers[0]) if fuses and len(readers) == 1 and name != source.output else None
    tail = name if clamp is None else readers[0].outputs[0]
    readers = source.readers(tail)
    rounded = tuple(node.outputs[0] for node in readers if node.op == QUANTIZE)
    quants = {source.rounded[key].quant for key in rounded}
    is_int8 = len(quants) == 1 and len(rounded) == len(readers) and tail != source.output
    return Sink(tail, clamp, rounded, quants.pop() if is_int8 else None)
