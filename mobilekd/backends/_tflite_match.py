"""Which tensor of a TFLite file is which of the ONNX graph, by value, and the range of those that have no twin.

A converter renames, transposes and fuses. Running one set of inputs through
both float graphs and comparing what flows needs no knowledge of how, and
checks every layer of the conversion as it goes.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobilekd.backends._tflite_graph import MATRIX_OPS, Graph, Op
from mobilekd.errors import StageError
from mobilekd.quant_table import QuantTable, TensorQuant

Array = NDArray[Any]
_TOLERANCE = 1e-3  # of the tensor's range; two float runtimes differ by 1e-6 of it
_SAMPLES = 4  # one image may leave a channel at zero, and with it two tensors that look alike
_INT8 = (-128, 127)
_SHARE_SCALE = (
    "PAD",
    "PADV2",
    "MIRROR_PAD",
    "RESHAPE",
    "MAX_POOL_2D",
    "AVERAGE_POOL_2D",
    "TRANSPOSE",
    "SQUEEZE",
    "EXPAND_DIMS",
    "SLICE",
    "STRIDED_SLICE",
)
_CLAMPS = ("RELU", "RELU6", "RELU_N1_TO_1", "RELU_0_TO_1")
_BY_CONSTANT = {"MUL": np.multiply, "ADD": np.add, "SUB": np.subtract, "DIV": np.divide}


@dataclass(frozen=True, slots=True)
class Range:
    """The real values of the smallest and the largest int8."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class WeightTwin:
    """A weight of the table, in TFLite's layout.

    Attributes:
        quant: Its entry in the table.
        payload: int8 values, transposed as the TFLite file stores them.
        axis: Its channel axis there.
    """

    quant: TensorQuant
    payload: Array
    axis: int

    def scales(self) -> Array:
        """Return one float64 scale per channel, also where the table has one for all."""
        return np.broadcast_to(np.array(self.quant.scale, np.float64), (self.payload.shape[self.axis],))


def onnx_values(model: Path, samples: Array) -> dict[str, Array]:
    """Return the inputs and every tensor that flows, for the first samples, as float32 [n, ...]."""
    import onnx
    import onnxruntime as ort

    proto = onnx.load(model)
    made = {name for node in proto.graph.node for name in node.output if name}
    known = {output.name for output in proto.graph.output}
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in sorted(made - known))
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    source, names = session.get_inputs()[0].name, [output.name for output in session.get_outputs()]
    runs = [session.run(names, {source: image[None]}) for image in samples[:_SAMPLES]]
    values = {name: np.stack(column) for name, column in zip(names, zip(*runs, strict=True), strict=True)}
    return {source: samples[:_SAMPLES, None], **values}  # the input first, then the output


def tflite_values(model: Path, graph: Graph, samples: Array) -> dict[int, Array]:
    """Return every tensor that flows, for the first samples, as float32 [n, ...]."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(
        str(model),
        experimental_preserve_all_tensors=True,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    interpreter.allocate_tensors()
    wanted, columns = graph.activations(), []
    for image in samples[:_SAMPLES]:
        interpreter.set_tensor(graph.inputs[0], np.ascontiguousarray(image.transpose(1, 2, 0)[None]))
        interpreter.invoke()
        columns.append([interpreter.get_tensor(index) for index in wanted])
    return {index: np.stack(values) for index, values in zip(wanted, zip(*columns, strict=True), strict=True)}


def check_output(graph: Graph, values: Mapping[int, Array], onnx: Mapping[str, Array], output: str) -> None:
    """Hold the float TFLite file's output against the ONNX graph's.

    Raises:
        StageError: They differ by more than float arithmetic explains.
    """
    error = _difference(values[graph.outputs[0]], onnx[output])
    if not error <= _TOLERANCE:
        raise StageError(
            f"the float TFLite file computes another {output} than the ONNX graph: {error:.2g} of its range off",
            hint="onnx2tf has converted an operator wrongly; its option -cotof compares layer by layer",
        )


def activation_twins(
    graph: Graph, values: Mapping[int, Array], onnx: Mapping[str, Array], table: QuantTable
) -> dict[int, TensorQuant]:
    """Return the table's entry of every TFLite activation that has the values of one.

    Of several within the tolerance the nearest counts, then the first in
    graph order that no other tensor has: dead channels can leave two
    tensors equal on every sample.
    """
    entries = [entry for entry in table.with_role("activation") if entry.name in onnx]
    twins: dict[int, TensorQuant] = {}
    taken: set[str] = set()
    for index in graph.activations():
        error = {entry.name: _difference(values[index], onnx[entry.name]) for entry in entries}
        near = [entry for entry in entries if error[entry.name] <= _TOLERANCE]
        if not near:
            continue
        # Rounding hides which of two is nearer; six digits of the range do not.
        twins[index] = min(near, key=lambda entry: (round(error[entry.name], 6), entry.name in taken))
        taken.add(twins[index].name)
    return twins


def weight_twins(graph: Graph, table: QuantTable, qdq: Path, stripped: Path) -> dict[int, WeightTwin]:
    """Return the table's weight behind the constant of every convolution and linear layer.

    Raises:
        StageError: A layer's weights are none of the table, as when the converter has folded something into them.
    """
    payloads, reals = _initializers(qdq), _initializers(stripped)
    entries = [entry for entry in table.with_role("weight") if entry.name in payloads and entry.name in reals]
    twins: dict[int, WeightTwin] = {}
    taken: set[str] = set()
    for op in graph.ops:
        index = op.inputs[MATRIX_OPS[op.kind][1]] if op.kind in MATRIX_OPS else None
        if index is None or index in twins or graph.tensors[index].data is None:
            continue
        content = graph.tensors[index].data
        fits = [
            (entry.name in taken, entry, axes)
            for entry in entries
            for axes in _layouts(op, reals[entry.name].ndim)
            if _same(reals[entry.name].transpose(axes), content)
        ]
        if not fits:
            raise StageError(
                f"{graph.tensors[index].name}: these weights of a {op.kind} are none of the quantization table",
                hint="the converter folded an operator into them; take it out of the network, or quantize after it",
            )
        _, entry, axes = min(fits, key=lambda fit: fit[0])
        taken.add(entry.name)
        axis = axes.index(entry.axis if entry.axis is not None else axes[_channel_axis(op)])
        twins[index] = WeightTwin(entry, payloads[entry.name].transpose(axes), axis)
    return twins


def ranges(graph: Graph, twins: Mapping[int, TensorQuant]) -> dict[int, Range]:
    """Return the range of every activation: its twin's, else by rule from its neighbours.

    What moves values without changing them shares its input's range. What
    clamps needs no more of its input than its output shows. An operation with
    a constant maps the interval.
    """
    known = {index: _range(quant) for index, quant in twins.items()}
    for _ in graph.ops:
        before = len(known)
        for op in graph.ops:
            for index, value in _implied(graph, op, known):
                known.setdefault(index, value)
        if len(known) == before:
            break
    return known


def _implied(graph: Graph, op: Op, known: Mapping[int, Range]) -> Iterator[tuple[int, Range]]:
    source, result = op.inputs[0], op.outputs[0]
    if op.kind in _SHARE_SCALE and source in known:
        yield result, known[source]
    if op.kind in (*_SHARE_SCALE, *_CLAMPS) and result in known and graph.tensors[source].data is None:
        yield source, known[result]
    if op.ends_in_relu6:  # hard-sigmoid's inner clip: training has no name for it
        yield result, Range(0.0, 6.0)
    elif op.kind in _BY_CONSTANT and result not in known:
        yield from _through_constant(graph, op, known)


def _through_constant(graph: Graph, op: Op, known: Mapping[int, Range]) -> Iterator[tuple[int, Range]]:
    sides = [graph.tensors[index].data for index in op.inputs]
    flowing = [index for index, side in zip(op.inputs, sides, strict=True) if side is None]
    if len(flowing) != 1 or flowing[0] not in known:
        return
    ends = [
        np.array([known[index].low, known[index].high]) if side is None else np.array([side.min(), side.max()])
        for index, side in zip(op.inputs, sides, strict=True)
    ]
    corners = _BY_CONSTANT[op.kind](ends[0][:, None], ends[1][None, :])
    yield op.outputs[0], Range(min(0.0, float(corners.min())), max(0.0, float(corners.max())))


def _range(quant: TensorQuant) -> Range:
    scale, zero_point = quant.scale[0], quant.zero_point[0]
    return Range((_INT8[0] - zero_point) * scale, (_INT8[1] - zero_point) * scale)


def _difference(tflite: Array, onnx: Array) -> float:
    """Return the largest difference, as a part of the ONNX tensor's range, in the better of both layouts."""
    if tflite.size != onnx.size or onnx.dtype.kind != "f":
        return np.inf
    reference = onnx.reshape(len(onnx), -1)
    spread = max(float(reference.max() - reference.min()), float(np.abs(reference).max()), 1e-12)
    kept = [tflite]
    if tflite.ndim >= 4:  # [n, 1, ..., channels]: the channels to the front
        kept.append(np.moveaxis(tflite, -1, 2))
    return min(float(np.abs(one.reshape(len(onnx), -1) - reference).max()) / spread for one in kept)


def _same(real: Array, content: Array | None) -> bool:
    if content is None or real.size != content.size:
        return False
    return real.shape == content.shape and bool(np.allclose(real, content, rtol=1e-6, atol=0.0))


def _layouts(op: Op, dimensions: int) -> Sequence[tuple[int, ...]]:
    """Return the orders of an ONNX weight's axes that an operator's weights may have."""
    if dimensions == 2:
        return ((0, 1), (1, 0))
    by_kind = {"CONV_2D": (0, 2, 3, 1), "DEPTHWISE_CONV_2D": (1, 2, 3, 0), "TRANSPOSE_CONV": (1, 2, 3, 0)}
    return (by_kind[op.kind],) if dimensions == 4 and op.kind in by_kind else ()


def _channel_axis(op: Op) -> int:
    return 3 if op.kind == "DEPTHWISE_CONV_2D" else 0


def _initializers(model: Path) -> dict[str, Array]:
    import onnx
    from onnx import numpy_helper

    return {one.name: numpy_helper.to_array(one) for one in onnx.load(model).graph.initializer}
