"""How two quantization tables differ, tensor by tensor."""

from dataclasses import dataclass

from mobilekd.quant_table import QuantTable, TensorQuant


@dataclass(frozen=True, slots=True)
class ScaleChange:
    """One tensor of both tables: the largest ratio of new scale to old over its channels, or its inverse if larger."""

    name: str
    role: str
    factor: float


@dataclass(frozen=True, slots=True)
class TableChange:
    """Two quantization tables.

    Attributes:
        same: Tensors of both with the same numbers.
        scales: Tensors of both whose scales alone differ, the largest factor first.
        other: Tensors of both that differ in type, range, zero point or number of channels, as "NAME: WHAT".
        gone, new: Tensors of one table only.
        to_float, to_int8: Operators that compute in float now, or no longer.
    """

    same: int
    scales: tuple[ScaleChange, ...]
    other: tuple[str, ...]
    gone: tuple[str, ...]
    new: tuple[str, ...]
    to_float: tuple[str, ...]
    to_int8: tuple[str, ...]


def table_change(old: QuantTable, new: QuantTable) -> TableChange:
    """Return how two tables differ."""
    before, after = old.by_name(), new.by_name()
    both = [(before[name], after[name]) for name in before if name in after]
    scales = [
        ScaleChange(was.name, was.role, _factor(was, now))
        for was, now in both
        if not _other(was, now) and was.scale != now.scale
    ]
    floats = [{f"{one.name} ({one.operator})": None for one in table.float_operators} for table in (old, new)]
    return TableChange(
        same=sum(was == now for was, now in both),
        scales=tuple(sorted(scales, key=lambda one: -one.factor)),
        other=tuple(f"{was.name}: {told}" for was, now in both if (told := _other(was, now))),
        gone=tuple(name for name in before if name not in after),
        new=tuple(name for name in after if name not in before),
        to_float=tuple(name for name in floats[1] if name not in floats[0]),
        to_int8=tuple(name for name in floats[0] if name not in floats[1]),
    )


def _factor(old: TensorQuant, new: TensorQuant) -> float:
    return max(max(now / was, was / now) for was, now in zip(old.scale, new.scale, strict=True))


def _other(old: TensorQuant, new: TensorQuant) -> str:
    """Return what differs beside the scales; empty when nothing does."""
    parts = {
        "type": (old.dtype, new.dtype),
        "channels": (len(old.scale), len(new.scale)),
        "axis": (old.axis, new.axis),
        "range": ((old.quant_min, old.quant_max), (new.quant_min, new.quant_max)),
        "zero point": (old.zero_point[:1], new.zero_point[:1]),
    }
    return "; ".join(f"{name} {was} -> {now}" for name, (was, now) in parts.items() if was != now)
