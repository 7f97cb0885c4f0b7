"""A model's own input and output, read from its ONNX graph."""

from typing import Literal

from onnx import ModelProto, helper

from mobilekd.backend import TensorFacts
from mobilekd.errors import StageError
from mobilekd.quant_table import TensorQuant

_LAYOUTS = {4: "NCHW", 2: "NC"}


def tensor_facts(model: ModelProto, side: Literal["input", "output"], quant: TensorQuant | None = None) -> TensorFacts:
    """Return the one input or output of a model of static shape.

    Args:
        model: An ONNX model.
        side: Which end.
        quant: Its scale, when the file's own type is int8.

    Raises:
        StageError: There is not exactly one, or its shape is not fixed.
    """
    values = list(model.graph.input if side == "input" else model.graph.output)
    if len(values) != 1:
        names = ", ".join(one.name for one in values) or "none"
        raise StageError(f"the model needs exactly one {side}, it has {len(values)}: {names}", code="MKD-420")
    tensor = values[0].type.tensor_type
    shape = tuple(int(dim.dim_value) for dim in tensor.shape.dim)
    if len(shape) not in _LAYOUTS or 0 in shape:
        raise StageError(
            f"the {side} {values[0].name!r} has shape {shape}", hint="export with a fixed batch of 1", code="MKD-420"
        )
    return TensorFacts(
        name=values[0].name,
        shape=shape,
        dtype=str(helper.tensor_dtype_to_np_dtype(tensor.elem_type)),
        layout=_LAYOUTS[len(shape)],
        scale=quant.scale[0] if quant else None,
        zero_point=quant.zero_point[0] if quant else None,
    )
