"""Clamps in the form that MNN's converter treats as the table does."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper, numpy_helper

from mobilekd.backends._mnn_layers import Layer
from mobilekd.quant_table import QuantTable, TensorQuant

_RELU6 = (0.0, 6.0)


def clamps_as_trained(
    model: ModelProto, table: QuantTable, layers: Sequence[Layer]
) -> tuple[ModelProto, tuple[Layer, ...]]:
    """Return the graph, changed in place, and its layers.

    - The converter fuses Relu and ReLU6 alone into a layer. For other bounds the layer itself is rounded, with the
      scale of the clamped tensor, and the clamp gets bounds on that grid: rounding is monotone, so
      round(clip(x, a, b)) = clip(round(x), round(a), round(b)).
    - A Relu behind a layer that the table rounds before it would be fused too, and that rounding left out. As a
      maximum of two tensors it is not.
    """
    quants = table.by_name()
    stored = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
    clamps = {node.output[0]: node for node in model.graph.node if node.op_type in ("Relu", "Clip")}
    sums = {node.name: node.output[0] for node in model.graph.node}
    constants: dict[str, NDArray[np.generic]] = {}
    written = []
    for layer in layers:
        clamp = clamps.get(layer.output)
        if clamp is None or clamp.op_type == "Relu" or _bounds(clamp, stored) == _RELU6:
            written.append(layer)
        else:
            _round_bounds(clamp, quants[layer.output], stored, constants)
            written.append(replace(layer, written=sums[layer.node]))
    outputs = {layer.output for layer in layers}
    for node in model.graph.node:
        if node.op_type == "Relu" and node.input[0] in outputs:
            constants["zero_real"] = np.float32(0).reshape(())
            maximum = helper.make_node("Max", [node.input[0], "zero_real"], node.output, name=node.name)
            node.CopyFrom(maximum)
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items())
    return model, tuple(written)


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
        constants[name] = (steps * step).astype(np.float32)
    clamp.input[:] = [clamp.input[0], *names]
