"""Read an int8 TFLite file back and hold every number against the quantization table and qdq.onnx, bit by bit."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from mobilekd.backends._tflite_graph import Graph, Tensor, read_model, view
from mobilekd.errors import StageError
from mobilekd.quant_table import QuantTable, TensorQuant

# Order of an ONNX weight's axes, and the axis of its outputs, in the weights of these operators.
_WEIGHTS = {
    "CONV_2D": ((0, 2, 3, 1), 0),
    "DEPTHWISE_CONV_2D": ((1, 2, 3, 0), 3),
    "TRANSPOSE_CONV": ((1, 2, 3, 0), 0),
}


def check_against_table(model: Path, table: QuantTable, qdq_onnx: Path) -> tuple[str, ...]:
    """Return the activations that the file has not, and the layers that it has in float; all else is equal.

    Raises:
        StageError: A scale, a zero point, a weight or a bias in the file is missing or not what was trained.
    """
    graph = view(read_model(model))
    trained = {one.name: numpy_helper.to_array(one) for one in onnx.load(str(qdq_onnx)).graph.initializer}
    return tuple(_missing(graph, table, trained))


def _missing(graph: Graph, table: QuantTable, trained: Mapping[str, NDArray[Any]]) -> Iterator[str]:
    readers = {op.inputs[1]: op.kind for op in graph.ops if len(op.inputs) > 1}
    # The weights of large depthwise windows pass through a RESHAPE.
    readers |= {op.inputs[0]: readers[op.outputs[0]] for op in graph.ops if op.outputs[0] in readers}
    for quant in table.tensors:
        index = graph.find(quant.name)
        if index is None and quant.role != "activation":
            raise StageError(
                f"the {quant.role} {quant.name!r} is in the quantization table and not in the TFLite file",
                hint="the int8 file is not the network that was trained; report it with the model",
                code="MKD-422",
            )
        if index is None:
            yield f"{quant.name}: fused away, not rounded on its own"
            continue
        tensor = graph.tensors[index]
        if quant.role != "activation" and tensor.dtype.startswith("float"):
            yield f"{quant.name}: float in the file"
        elif quant.role == "activation":
            _check_activation(quant, tensor)
        elif quant.role == "weight":
            _check_weight(quant, tensor, trained[quant.name], readers.get(index, ""))
        else:
            _check_bias(quant, tensor, trained[quant.name])


def _check_activation(quant: TensorQuant, tensor: Tensor) -> None:
    if tensor.dtype != "int8":
        raise _differs(tensor, quant, f"is {tensor.dtype} in the file")
    wanted = (float(np.float32(quant.scale[0])), quant.zero_point[0])
    if len(tensor.scale) != 1 or (tensor.scale[0], tensor.zero_point[0]) != wanted:
        raise _differs(tensor, quant, f"scale {tensor.scale}, zero point {tensor.zero_point}; the table has {wanted}")


def _check_weight(quant: TensorQuant, tensor: Tensor, payload: NDArray[Any], reader: str) -> None:
    if tensor.dtype != "int8" or tensor.data is None:
        raise _differs(tensor, quant, f"is {tensor.dtype} in the file")
    wanted, axis = _laid_out(quant, tensor, payload, reader)
    _check_scales(quant, tensor)
    if any(tensor.zero_point):
        raise _differs(tensor, quant, f"zero point {tensor.zero_point}; weights have 0")
    if len(quant.scale) > 1 and tensor.axis != axis:
        raise _differs(tensor, quant, f"channel axis {tensor.axis}; {reader} has its outputs on {axis}")
    _check_values(quant, tensor, wanted)


def _laid_out(quant: TensorQuant, tensor: Tensor, payload: NDArray[Any], reader: str) -> tuple[NDArray[Any], int]:
    """Return a trained weight in the order of the operator that reads it, and the axis of its outputs there."""
    if reader in _WEIGHTS:
        order, axis = _WEIGHTS[reader]
        return payload.transpose(order), axis
    if reader == "FULLY_CONNECTED":
        is_turned = quant.axis == 1 or (quant.axis is None and payload.shape != tensor.shape)
        return (payload.T if is_turned else payload), 0
    return (payload.reshape(tensor.shape) if payload.size == np.prod(tensor.shape) else payload), tensor.axis


def _check_bias(quant: TensorQuant, tensor: Tensor, real: NDArray[Any]) -> None:
    if tensor.dtype != "int32" or tensor.data is None:
        raise _differs(tensor, quant, f"is {tensor.dtype} in the file; a bias is int32")
    _check_scales(quant, tensor)
    grid = np.asarray(quant.scale, np.float32).astype(np.float64)
    _check_values(quant, tensor, np.rint(real.reshape(-1).astype(np.float64) / grid).astype(np.int32))


def _check_scales(quant: TensorQuant, tensor: Tensor) -> None:
    found, wanted = np.array(tensor.scale, np.float32), np.asarray(quant.scale, np.float32)
    if found.shape != wanted.shape:
        raise _differs(tensor, quant, f"{len(found)} scales; the table has {len(wanted)}")
    if not np.array_equal(found, wanted):
        channel = int(np.argmax(found != wanted))
        raise _differs(tensor, quant, f"scale {found[channel]} of channel {channel}; the table has {wanted[channel]}")


def _check_values(quant: TensorQuant, tensor: Tensor, wanted: NDArray[Any]) -> None:
    assert tensor.data is not None
    if tensor.data.shape != wanted.shape:
        raise _differs(tensor, quant, f"shape {list(tensor.data.shape)}; training has {list(wanted.shape)}")
    if not np.array_equal(tensor.data, wanted):
        at = tuple(int(i) for i in np.argwhere(tensor.data != wanted)[0])
        raise _differs(tensor, quant, f"{tensor.data[at]} at {list(at)}; training has {wanted[at]}")


def _differs(tensor: Tensor, quant: TensorQuant, what: str) -> StageError:
    return StageError(
        f"TFLite tensor {tensor.name} ({quant.name} in the quantization table): {what}",
        hint="the int8 file is not the network that was trained; report it with the model",
        code="MKD-422",
    )
