"""What a converted file says of its scales and weights, held against the quantization table."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobilekd import graph
from mobilekd.errors import StageError
from mobilekd.quant_table import QuantTable, TensorQuant

Integers = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Trained:
    """What was trained, by name in the table: int8 weights, and biases as integers of the accumulator."""

    weights: Mapping[str, Integers]
    biases: Mapping[str, Integers]


class ReadBack:
    """Compares what is read from one file with the table, tensor by tensor; the first difference is a StageError."""

    def __init__(self, file: Path, table: QuantTable, trained: Trained) -> None:
        self._file = file.name
        self._table = table.by_name()
        self._trained = trained
        self.seen: set[str] = set()

    def scales(self, name: str, scale: Sequence[float] | NDArray[np.floating], zero_point: Collection[int]) -> None:
        """Compare one tensor's scales and zero points, as float32, bit by bit.

        Args:
            name: Name in the table.
            scale: As read from the file.
            zero_point: As read from the file, on the table's int8 axis.
        """
        entry = self._entry(name)
        wanted = np.asarray(entry.scale, np.float32)
        found = np.asarray(scale, np.float32).reshape(-1)
        if not np.array_equal(found, wanted):
            raise self._drift(name, "scale", _first_difference(found, wanted))
        if set(zero_point) - set(entry.zero_point):
            raise self._drift(name, "zero point", f"{sorted(set(zero_point))} in the file, {entry.zero_point[:1]}")
        self.seen.add(name)

    def weights(self, name: str, found: Integers) -> None:
        """Compare the integers of one weight with those that were trained."""
        wanted = self._trained.weights[name].reshape(-1)
        if not np.array_equal(found.reshape(-1), wanted):
            raise self._drift(name, "int8 weights", _first_difference(found.reshape(-1), wanted))

    def biases(self, name: str, found: Integers) -> None:
        """Compare one bias, stored as integers of the accumulator or as real values, with that which was trained."""
        entry = self._entry(name)
        steps = found.reshape(-1)
        if not np.issubdtype(steps.dtype, np.integer):
            steps = np.rint(steps.astype(np.float64) / np.asarray(entry.scale, np.float32)).astype(np.int64)
        wanted = self._trained.biases[name].reshape(-1)
        # A float32 holds 24 bits: of a larger integer the last ones are rounded.
        if steps.shape != wanted.shape or (np.abs(steps - wanted) > np.abs(wanted) * 2.0**-22).any():
            raise self._drift(name, "bias", _first_difference(steps, wanted))
        self.seen.add(name)

    def finish(self, wanted: Collection[str]) -> None:
        """Check that nothing of the table is missing from the file.

        Raises:
            StageError: Names the first tensor that was not found.
        """
        missing = [name for name in wanted if name not in self.seen]
        if missing:
            raise StageError(
                f"{self._file}: {missing[0]!r} is in the quantization table and not in the file"
                f" ({len(missing)} tensors are missing)",
                hint="the converter dropped or renamed it: see convert.log",
                code="MKD-422",
            )

    def _entry(self, name: str) -> TensorQuant:
        if name not in self._table:
            raise StageError(
                f"{self._file}: {name!r} is quantized in the file and not in the quantization table", code="MKD-422"
            )
        return self._table[name]

    def _drift(self, name: str, what: str, detail: str) -> StageError:
        return StageError(
            f"{self._file}: the {what} of {name!r} differs: {detail} in the quantization table",
            hint="the file was not built from this table; run the convert stage again with --fresh",
            code="MKD-422",
        )


def _first_difference(found: NDArray[np.generic], wanted: NDArray[np.generic]) -> str:
    if found.shape != wanted.shape:
        return f"{found.size} values in the file, {wanted.size}"
    index = int(np.flatnonzero(found != wanted)[0])
    return f"element {index} is {found[index]} in the file, {wanted[index]}"


def trained(qdq_onnx: Path, table: QuantTable) -> Trained:
    """Return the int8 weights and the biases of the trained network."""
    index = graph.index_qdq(graph.load(qdq_onnx))
    weights = {node.input[0] for node in index.weights.values()} & {one.name for one in table.with_role("weight")}
    biases = {
        one.name: np.rint(index.constants[one.name].astype(np.float64) / np.asarray(one.scale, np.float32))
        for one in table.with_role("bias")
    }
    return Trained(
        {name: index.constants[name] for name in weights},
        {name: steps.astype(np.int64) for name, steps in biases.items()},
    )
