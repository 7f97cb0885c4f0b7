"""Tensors of a deployed ONNX file made outputs of its graph: what flows through it, without changing its kernels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

from mobilekd.backends._ort_graph import QUANTIZED


@dataclass(frozen=True, slots=True)
class Probe:
    """One tensor to read: its name in the file, and how to make real values of its integers.

    Attributes:
        tensor: Name in the file.
        scale: None for a tensor that is float in the file.
        zero_point: Integer that stands for 0.
    """

    tensor: str
    scale: np.float32 | None = None
    zero_point: int = 0

    def real(self, value: NDArray[np.generic]) -> NDArray[np.float32]:
        """Return the values as float32."""
        if self.scale is None:
            return value.astype(np.float32)
        return ((value.astype(np.float32) - np.float32(self.zero_point)) * self.scale).astype(np.float32)


def probes(model: ModelProto, names: Sequence[str]) -> Mapping[str, Probe]:
    """Return where to read the named tensors of stripped.onnx; those that the file does not have are left out.

    The integers of a rounded tensor are read, never the float between Q and DQ: as an output of the graph that float
    would keep the operators around it from being fused to one integer kernel.
    """
    constants = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
    quantized: dict[str, Probe] = {}
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] not in constants:
            scale, zero = constants[node.input[1]].reshape(-1)[0], constants[node.input[2]].reshape(-1)[0]
            quantized.setdefault(node.input[0], Probe(node.input[0], np.float32(scale), int(zero)))
    written = {name for node in model.graph.node for name in node.output}
    found = {}
    for name in names:
        if name + QUANTIZED in quantized:
            found[name] = quantized[name + QUANTIZED]
        elif name in written:
            found[name] = Probe(name)
    return found


def with_outputs(model: ModelProto, wanted: Mapping[str, Probe]) -> ModelProto:
    """Return the model with the probed tensors as outputs, behind its own."""
    probed = ModelProto()
    probed.CopyFrom(model)
    known = {one.name for one in probed.graph.output}
    for probe in wanted.values():
        if probe.tensor not in known:
            kind = TensorProto.FLOAT if probe.scale is None else TensorProto.UINT8
            probed.graph.output.append(helper.make_tensor_value_info(probe.tensor, kind, None))
            known.add(probe.tensor)
    return probed
