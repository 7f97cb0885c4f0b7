"""The program of an .mlpackage as its specification and its weight file tell it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Operator:
    """One operator.

    Attributes:
        kind: As "conv".
        name: What it writes; the first where it writes several.
        inputs: Names of what it reads, by parameter; the first of several.
        constants: Attributes with numbers, by name.
    """

    kind: str
    name: str
    inputs: Mapping[str, str]
    constants: Mapping[str, Array]


class Package:
    """The operators of the main function, in order, found by what they write."""

    def __init__(self, folder: Path) -> None:
        """Read a package.

        Args:
            folder: NAME.mlpackage.
        """
        import coremltools as ct

        function = ct.utils.load_spec(str(folder)).mlProgram.functions["main"]
        block = function.block_specializations[function.opset]
        weights = folder / "Data" / "com.apple.CoreML" / "weights" / "weight.bin"
        self.operators = tuple(_operators(block, weights))
        self.by_name = {one.name: one for one in self.operators}

    def constant(self, name: str) -> Array | None:
        """Return the numbers of a const operator."""
        maker = self.by_name.get(name)
        return maker.constants.get("val") if maker is not None and maker.kind == "const" else None


def _operators(block: Any, weights: Path) -> Iterator[Operator]:
    from coremltools.libmilstoragepython import _BlobStorageReader

    reader = _BlobStorageReader(str(weights)) if weights.is_file() else None
    for one in block.operations:
        inputs = {key: given.arguments[0].name for key, given in one.inputs.items() if given.arguments}
        values = ((key, _numbers(value, reader)) for key, value in one.attributes.items())
        yield Operator(
            one.type, one.outputs[0].name, inputs, {key: found for key, found in values if found is not None}
        )


def _numbers(value: Any, reader: Any) -> Array | None:
    """Return the numbers of an attribute, in its shape; None for text and the like."""
    tensor = value.type.tensorType
    shape = [int(one.constant.size) for one in tensor.dimensions]
    dtype = _DTYPES.get(tensor.dataType)
    if dtype is None:
        return None
    if value.WhichOneof("value") == "blobFileValue":
        read = reader.read_int8_data if dtype == np.int8 else reader.read_float_data
        return np.asarray(read(value.blobFileValue.offset), dtype).reshape(shape)
    stored = value.immediateValue.tensor
    if stored.WhichOneof("value") == "bytes":
        return np.frombuffer(stored.bytes.values, dtype).reshape(shape)
    numbers = getattr(stored, stored.WhichOneof("value")).values
    return np.asarray(numbers, dtype).reshape(shape)


# Numbers of MIL.DataType in the published MIL.proto.
_DTYPES: Mapping[int, type[np.generic]] = {11: np.float32, 21: np.int8, 23: np.int32}
