"""The contract of a distillation method: which terms a batch adds to the loss."""

import abc
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Outputs:
    """What a network gives for a batch: logits [batch, classes] and, for methods that use them, named features."""

    logits: "Tensor"
    features: Mapping[str, "Tensor"] = field(default_factory=dict)


class Method(BaseModel, abc.ABC):
    """One distillation method; its fields are its hyper-parameters."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    uses_features: ClassVar[bool] = False

    def adapters(self, student: Outputs, teacher: Outputs) -> "nn.Module | None":
        """Return layers that are trained with the student and dropped at the end; None when there are none."""
        del student, teacher
        return None

    @abc.abstractmethod
    def terms(
        self, student: Outputs, teacher: Outputs, labels: "Tensor", adapters: "nn.Module | None"
    ) -> Mapping[str, "Tensor"]:
        """Return the loss terms, named and already weighted, each 0-d; the loop sums and logs them."""
