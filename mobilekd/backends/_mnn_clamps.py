"""Clamps and second roundings in the form that MNN's converter treats as the table does."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper, numpy_helper

from mobilekd.backends._mnn_layers import Layer
from mobilekd.quant_table import QuantTable, TensorQuant

_RELU6 = (0.0, 6.0)
_ARITHMETIC = frozenset({"Add", "Sub", "Mul", "Div"})


def clamps_as_trained(
    model: ModelProto, table: QuantTable, layers: Sequence[Layer]
) -> tuple[ModelProto, tuple[Layer, ...]]:
    """Return the graph, changed in place, and its layers.

    - The converter fuses Relu and ReLU6 alone into a layer. For other bounds the layer itself is rounded, with the
      scale of the clamped tensor, and the clamp gets bounds on that grid: rounding is monotone, so
      round(clip(x, a, b)) = clip(round(x), round(a), round(b)). So it is behind a linear layer, whose fused form has a
      tensor of another name, for which the converter finds no scales; the clamp is a maximum and a minimum there.
    - A Relu, or an addition or product with a constant for each channel, would be fused into a layer whose output the
      table rounds before, and that rounding left out. A maximum of two tensors is not fused.
    - An Identity that changes the scale is dropped, and a Pad merged into the layer behind it: that layer would read
      the old scale. A maximum keeps the tensor and so its scale.
    """
    quants = table.by_name()
    stored = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
    clamps = {node.output[0]: node for node in model.graph.node if node.op_type in ("Relu", "Clip")}
    makers = {node.name: node for node in model.graph.node}
    constants: dict[str, NDArray[np.generic]] = {}
    written = []
    for layer in layers:
        clamp = clamps.get(layer.output)
        if clamp is None or _is_fused(makers[layer.node], clamp, stored):
            written.append(layer)
            continue
        if clamp.op_type == "Clip":
            _round_bounds(clamp, quants[layer.output], stored, constants)
        written.append(replace(layer, written=makers[layer.node].output[0]))
    second = set(_second_roundings(model, quants))
    linear = {makers[layer.node].output[0] for layer in layers if makers[layer.node].op_type != "Conv"}
    nodes = list(_fenced(_written_out(model, linear), {layer.output for layer in layers}, second, stored))
    constants |= {"zero_real": np.zeros((), np.float32), "lowest_real": np.asarray(np.finfo(np.float32).min)}
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()
    )
    return model, tuple(written)


def _is_fused(layer: NodeProto, clamp: NodeProto, stored: Mapping[str, NDArray[np.generic]]) -> bool:
    """Return True if the converter makes the clamp a part of the layer: its fusion knows convolutions alone."""
    return layer.op_type == "Conv" and (clamp.op_type == "Relu" or _bounds(clamp, stored) == _RELU6)


def _second_roundings(model: ModelProto, quants: Mapping[str, TensorQuant]) -> Iterator[str]:
    """Yield the outputs of Identity that have a scale of their own; a Concat alone rounds to it without help."""
    others = {name for node in model.graph.node if node.op_type != "Concat" for name in node.input}
    for node in model.graph.node:
        ends = [quants[name].scale for name in (*node.input, *node.output) if name in quants]
        if node.op_type == "Identity" and len(set(ends)) == 2 and node.output[0] in others:
            yield node.output[0]


def _written_out(model: ModelProto, linear: set[str]) -> Iterator[NodeProto]:
    """Yield copies of the nodes, with a clamp behind a linear layer as a maximum and a minimum."""
    for node in [type(one).FromString(one.SerializeToString()) for one in model.graph.node]:
        if node.op_type == "Relu" and node.input[0] in linear:
            yield helper.make_node("Max", [node.input[0], "zero_real"], node.output, name=node.name)
        elif node.op_type == "Clip" and node.input[0] in linear:
            source, low, high = node.input
            yield helper.make_node("Max", [source, low], [f"{node.output[0]}__above"], name=f"{node.name}__above")
            yield helper.make_node("Min", [f"{node.output[0]}__above", high], node.output, name=node.name)
        else:
            yield node


def _fenced(
    nodes: Iterable[NodeProto], outputs: set[str], second: set[str], stored: Mapping[str, NDArray[np.generic]]
) -> Iterator[NodeProto]:
    """Yield the nodes, with a maximum where the converter would fuse or drop an operator and a rounding with it."""
    for node in nodes:
        if node.output[0] in second:
            yield helper.make_node("Max", [node.input[0], "lowest_real"], node.output, name=node.name)
            continue
        rounded = [name for name in node.input if name in outputs]
        if node.op_type == "Relu" and rounded:
            yield helper.make_node("Max", [*rounded, "zero_real"], node.output, name=node.name)
            continue
        if (
            node.op_type in _ARITHMETIC
            and rounded
            and any(stored[name].size > 1 for name in node.input if name in stored)
        ):
            fence = f"{node.output[0]}__fence"
            yield helper.make_node("Max", [*rounded, "lowest_real"], [fence], name=fence)
            node.input[:] = [fence if name in outputs else name for name in node.input]
        yield node


def _bounds(clamp: NodeProto, stored: Mapping[str, NDArray[np.generic]]) -> tuple[float, float]:
    low, high = [*clamp.input[1:], "", ""][:2]
    return (
        float(stored[low].item()) if low else -np.inf,
        float(stored[high].item()) if high else np.inf,
    )


def _round_bounds(
    clamp: NodeProto,
    quant: TensorQuant,
    stored: Mapping[str, NDArray[np.generic]],
    constants: dict[str, NDArray[np.generic]],
) -> None:
    step = np.float32(quant.scale[0])
    names = [f"{clamp.output[0]}__low", f"{clamp.output[0]}__high"]
    limits = (quant.quant_min, quant.quant_max)
    for name, bound, limit in zip(names, _bounds(clamp, stored), limits, strict=True):
        steps = np.rint(np.float32(bound) / step) if np.isfinite(bound) else np.float32(limit)
        constants[name] = np.asarray(steps * step, np.float32)
    clamp.input[:] = [clamp.input[0], *names]
