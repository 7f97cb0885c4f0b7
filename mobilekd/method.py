"""The contract of a distillation method: which terms a batch adds to the loss."""

import abc
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from torch import Tensor, nn

Reads = Literal["logits", "stages", "embedding"]


@dataclass(frozen=True, slots=True)
class Outputs:
    """What a network gives for a batch.

    Attributes:
        logits: [batch, classes], unnormalised.
        stages: Feature maps [batch, channels, height, width], shallow to deep; student and teacher have as many.
        embedding: [batch, width], what the last linear layer reads; None when no method asks for it.
    """

    logits: "Tensor"
    stages: "tuple[Tensor, ...]" = ()
    embedding: "Tensor | None" = None

    def embedded(self) -> "Tensor":
        """Return the embedding of a method that reads it."""
        assert self.embedding is not None
        return self.embedding


@dataclass(frozen=True, slots=True)
class Batch:
    """What the loop knows of a batch.

    Attributes:
        images: [batch, channels, height, width], augmented and normalised; teacher and student see these pixels.
        labels: int64 [batch].
        targets: [batch, classes], rows sum to 1: one-hot labels, smoothed and mixed as the recipe says.
        rows: int64 [batch], numbers of the images in the training split.
        view: Number of the augmentation; an image and a view give the same pixels again.
        progress: Share of the run that is done, 0 to 1.
    """

    images: "Tensor"
    labels: "Tensor"
    targets: "Tensor"
    rows: "Tensor"
    view: int = 0
    progress: float = 0.0


@dataclass(frozen=True, slots=True)
class Sizes:
    """What adapters may need beside the outputs of one batch: images of the training split, and classes."""

    train_images: int
    classes: int


class Method(BaseModel, abc.ABC):
    """One distillation method; its fields are its hyper-parameters.

    Attributes:
        weight: Multiplies every term of the method; the default is the paper's, or that of
            the source named, or has its reason beside it.
        start, end: Share of the run between which the method counts.
        ramp: Share of the run over which the weight rises from 0 after `start`.
        decay: "none", or "linear" and "cosine" to 0 at `end`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    reads: ClassVar[frozenset[Reads]] = frozenset({"logits"})

    weight: float = Field(default=1.0, ge=0)
    start: float = Field(default=0.0, ge=0, le=1)
    end: float = Field(default=1.0, ge=0, le=1)
    ramp: float = Field(default=0.0, ge=0, le=1)
    decay: Literal["none", "linear", "cosine"] = "none"

    @classmethod
    def uses_features(cls) -> bool:
        """Return whether the teacher has to run although its logits are cached."""
        return bool(cls.reads - {"logits"})

    def adapters(self, student: Outputs, teacher: Outputs, sizes: Sizes) -> "nn.Module | None":
        """Return layers that are trained with the student and dropped at the end; None when there are none.

        Args:
            student: Outputs for a few images, for the shapes.
            teacher: The same of the teacher.
            sizes: Of the data.
        """
        del student, teacher, sizes
        return None

    @abc.abstractmethod
    def terms(
        self, student: Outputs, teacher: Outputs, batch: Batch, adapters: "nn.Module | None"
    ) -> Mapping[str, "Tensor"]:
        """Return the named terms, each 0-d, before `weight` and its schedule; the objective multiplies and sums."""

    def weight_at(self, progress: float) -> float:
        """Return the weight at a point of the run, 0 to 1.

        Example:
            >>> from mobilekd.methods.kd import Kd
            >>> [Kd(start=0.2, ramp=0.2, decay="linear").weight_at(point) for point in (0.1, 0.3, 0.6, 1.0)]
            [0.0, 0.4375, 0.5, 0.0]
        """
        import math

        if not self.start <= progress <= self.end:
            return 0.0
        done = (progress - self.start) / max(self.end - self.start, 1e-12)
        risen = min(1.0, (progress - self.start) / self.ramp) if self.ramp else 1.0
        left = {"none": 1.0, "linear": 1 - done, "cosine": 0.5 * (1 + math.cos(math.pi * done))}[self.decay]
        return round(self.weight * risen * left, 12)
