"""The quantization table: the one place where scales live after QAT.

`quant_table.json` is read from the trained int8 network and every backend is
built from it. Format, version 2 (docs/quant_table.md):

    {"schema": "mobilekd.quant_table/2", "rounding": "half_to_even",
     "tensors": [{"name", "role", "dtype", "scale", "zero_point", "axis",
                  "quant_min", "quant_max"}],
     "float_operators": [{"name", "operator", "reason"}]}

`real = scale * (quantized - zero_point)`. `scale` and `zero_point` are lists:
one element when `axis` is null (per tensor), else one per index of that axis.
Names are tensor names of qdq.onnx with Q/DQ taken out (stripped.onnx).
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from mobilekd.artifacts import write_json
from mobilekd.errors import ConfigError

SCHEMA = "mobilekd.quant_table/2"
DECIDED = "kept in float: "
"""How the reason of an operator begins that was decided to stay float; the option that decided it follows."""

Role = Literal["activation", "weight", "bias"]


@dataclass(frozen=True, slots=True)
class TensorQuant:
    """How one tensor is quantized.

    Attributes:
        name: Tensor name in stripped.onnx.
        role: Activation, weight, or bias.
        dtype: "int8" or "int32" (bias).
        scale: Positive reals; one, or one per channel along `axis`.
        zero_point: As many integers as scales.
        axis: Channel axis of a per-channel tensor, else None.
        quant_min, quant_max: Range of the quantized value, e.g. -127 and 127 for weights.
    """

    name: str
    role: Role
    dtype: str
    scale: tuple[float, ...]
    zero_point: tuple[int, ...]
    axis: int | None
    quant_min: int
    quant_max: int


@dataclass(frozen=True, slots=True)
class FloatOperator:
    """An operator that computes in float.

    Attributes:
        name: The tensor that it writes, in stripped.onnx.
        operator: ONNX operator type.
        reason: Why, in words.
    """

    name: str
    operator: str
    reason: str

    @property
    def is_decided(self) -> bool:
        """Return whether keep_float or max_top1_drop keeps it in float."""
        return self.reason.startswith(DECIDED)


@dataclass(frozen=True, slots=True)
class QuantTable:
    """All quantized tensors, found by name, and the operators that compute in float; both in graph order."""

    tensors: tuple[TensorQuant, ...]
    rounding: str = "half_to_even"
    float_operators: tuple[FloatOperator, ...] = ()

    def by_name(self) -> Mapping[str, TensorQuant]:
        """Return the tensors by name."""
        return {tensor.name: tensor for tensor in self.tensors}

    def with_role(self, role: Role) -> tuple[TensorQuant, ...]:
        """Return the tensors of one role, in graph order."""
        return tuple(tensor for tensor in self.tensors if tensor.role == role)


def save_table(table: QuantTable, path: Path) -> None:
    """Write the table as canonical JSON."""
    write_json(path, {"schema": SCHEMA, **asdict(table)})


def load_table(path: Path) -> QuantTable:
    """Read a table.

    Raises:
        ConfigError: The file is not a table of a version that we read.
    """
    try:
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if document["schema"] != SCHEMA:
            raise ConfigError(
                f"{path}: schema is {document['schema']!r}; this version reads {SCHEMA!r}",
                hint="build the bundle again: mobilekd build",
            )
        tensors = tuple(_tensor(entry) for entry in document["tensors"])
        floats = tuple(FloatOperator(**entry) for entry in document["float_operators"])
        return QuantTable(tensors, document["rounding"], floats)
    except (KeyError, TypeError, ValueError) as cause:
        raise ConfigError(f"{path} is not a quantization table: {cause!r}") from cause


def _tensor(entry: dict[str, Any]) -> TensorQuant:
    scale, zero_point = tuple(map(float, entry.pop("scale"))), tuple(map(int, entry.pop("zero_point")))
    return TensorQuant(scale=scale, zero_point=zero_point, **entry)
