"""One ONNX operator, as a rule of the torch programs sees it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray
from onnx import NodeProto, helper
from torch import Tensor

from mobilekd.errors import StageError

Read = Callable[[str], Tensor]
Constants = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Call:
    """One operator and how to read what flows into it."""

    node: NodeProto
    read: Read
    constants: Constants

    def __getitem__(self, at: int) -> Tensor:
        """Return an input as a tensor."""
        return self.read(self.node.input[at])

    def __len__(self) -> int:
        """Return how many inputs there are, absent optional ones at the end left out."""
        given = [at for at, name in enumerate(self.node.input) if name]
        return given[-1] + 1 if given else 0

    def all(self) -> list[Tensor]:
        """Return every input as a tensor."""
        return [self.read(name) for name in self.node.input]

    def optional(self, at: int) -> Tensor | None:
        """Return an input, None where it is not given."""
        return self[at] if at < len(self) else None

    def integers(self, at: int, attribute: str = "") -> list[int] | None:
        """Return a constant input as integers, or the attribute that older operator sets have; None without either.

        Raises:
            StageError: The input is computed, not constant.
        """
        if at < len(self) and self.node.input[at]:
            return [int(one) for one in self.constant(at).reshape(-1)]
        found = self.attribute(attribute, None)
        return None if found is None else [int(one) for one in found]

    def constant(self, at: int) -> NDArray[Any]:
        """Return a constant input.

        Raises:
            StageError: It is computed.
        """
        name = self.node.input[at]
        if name not in self.constants:
            raise StageError(f"{self.node.op_type} {self.node.name}: its input {name!r} must be constant")
        return self.constants[name]

    def attribute(self, name: str, default: Any) -> Any:
        """Return an attribute."""
        return next((helper.get_attribute_value(one) for one in self.node.attribute if one.name == name), default)
