"""Read an int8 TFLite file back and hold every number against the quantization table."""

from collections.abc import Mapping

import numpy as np

from mobilekd.backends._tflite_graph import MATRIX_OPS, Graph, Tensor
from mobilekd.backends._tflite_match import WeightTwin
from mobilekd.errors import StageError
from mobilekd.quant_table import TensorQuant

# The int8 kernels of these write one fixed scale, whatever training has learned: it is finer than a learned one.
_KERNEL_FIXES_SCALE = ("LOGISTIC", "SOFTMAX", "LOG_SOFTMAX", "TANH", "L2_NORMALIZATION")


def check_against_table(
    graph: Graph, activations: Mapping[str, TensorQuant], weights: Mapping[str, WeightTwin]
) -> tuple[str, ...]:
    """Return the tensors whose scale the kernel fixes; all others hold exactly the table's numbers.

    Args:
        graph: The int8 file, read back.
        activations: Entry of the table, by the tensor's name in the float file.
        weights: Weight of the table in TFLite's layout, by the tensor's name.

    Raises:
        StageError: A scale, a zero point or a weight in the file is not the table's; both values are given.
    """
    found = {tensor.name: tensor for tensor in graph.tensors}
    fixed = {graph.tensors[index].name for op in graph.ops if op.kind in _KERNEL_FIXES_SCALE for index in op.outputs}
    for name, quant in activations.items():
        if name not in fixed:
            _check_activation(name, quant, _int8_of(found, name))
    for name, weight in weights.items():
        _check_weight(name, weight, found.get(name))
    _check_biases(graph)
    return tuple(sorted(name for name in fixed if name in activations))


def _int8_of(found: Mapping[str, Tensor], name: str) -> Tensor | None:
    """Return the int8 tensor; at a float edge of the graph the quantizer puts it beside the float one."""
    named = [found.get(one) for one in (name, f"{name}_quantized")]
    return next((tensor for tensor in named if tensor is not None and tensor.dtype == "int8"), None)


def _check_activation(name: str, quant: TensorQuant, tensor: Tensor | None) -> None:
    if tensor is None:
        raise _differs(name, quant.name, "is not int8 in the file")
    wanted = (float(np.float32(quant.scale[0])), quant.zero_point[0])
    if len(tensor.scale) != 1 or (tensor.scale[0], tensor.zero_point[0]) != wanted:
        raise _differs(
            name, quant.name, f"scale {tensor.scale}, zero point {tensor.zero_point}; the table has {wanted}"
        )


def _check_weight(name: str, weight: WeightTwin, tensor: Tensor | None) -> None:
    if tensor is None or tensor.dtype != "int8" or tensor.data is None:
        raise _differs(name, weight.quant.name, "is not int8 in the file")
    wanted = weight.scales().astype(np.float32)
    if tensor.axis != weight.axis and len(wanted) > 1:
        raise _differs(name, weight.quant.name, f"channel axis {tensor.axis}; the table has {weight.axis}")
    scales = np.array(tensor.scale, np.float32)
    if scales.shape != wanted.shape or not np.array_equal(scales, wanted):
        channel = int(np.argmax(scales != wanted)) if scales.shape == wanted.shape else 0
        raise _differs(
            name, weight.quant.name, f"scale {scales[channel]} of channel {channel}; the table has {wanted[channel]}"
        )
    if not np.array_equal(tensor.data, weight.payload):
        at = tuple(int(i) for i in np.argwhere(tensor.data != weight.payload)[0])
        raise _differs(name, weight.quant.name, f"{tensor.data[at]} at {list(at)}; training has {weight.payload[at]}")


def _check_biases(graph: Graph) -> None:
    for op in graph.ops:
        if op.kind in MATRIX_OPS and len(op.inputs) == 3 and op.kind != "TRANSPOSE_CONV":
            bias = graph.tensors[op.inputs[2]]
            if bias.dtype != "int32":
                raise _differs(bias.name, bias.name, f"is {bias.dtype} in the file; a bias is int32")


def _differs(name: str, entry: str, what: str) -> StageError:
    return StageError(
        f"TFLite tensor {name} ({entry} in the quantization table): {what}",
        hint="the int8 file is not the network that was trained; the scales of tensors that share one must be equal",
    )
