"""What a teacher answers, run now or remembered: logits alone, or all that the methods read of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Protocol, Self

import torch
from torch import Tensor

from mobilekd.errors import StageError
from mobilekd.method import Batch, Outputs
from mobilekd.training.soft_labels import LARGEST_FP16


class SoftAnswers(Protocol):
    """Rows of numbers of one teacher, remembered; `mobilekd.training.soft_labels.SoftLabels`."""

    def answers(self, rows: Tensor, view: int, ask: Callable[[Tensor], Tensor]) -> Tensor:
        """Return float32 [rows, width]; `ask` runs the teacher on the images at some places of the batch."""


OpenAnswers = Callable[[int, Mapping[str, object]], SoftAnswers]
"""The width of a row, known once the teacher ran, and what is read of it -> its remembered rows."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How the outputs of a network lie in a row: logits, each stage flattened, the embedding.

    Attributes:
        classes: Width of the logits.
        stages: Channels, height and width of each.
        embedding: Its width; 0 without one.
    """

    classes: int
    stages: tuple[tuple[int, ...], ...]
    embedding: int

    @classmethod
    def of(cls, outputs: Outputs) -> Self:
        """Return the layout of some outputs."""
        stages = tuple(tuple(one.shape[1:]) for one in outputs.stages)
        return cls(outputs.logits.shape[1], stages, 0 if outputs.embedding is None else outputs.embedding.shape[1])

    @property
    def sizes(self) -> list[int]:
        """Return the numbers of each part of a row."""
        return [self.classes, *(prod(one) for one in self.stages), *([self.embedding] if self.embedding else [])]

    def packed(self, outputs: Outputs) -> Tensor:
        """Return rows float32 [batch, sum of sizes].

        Example:
            >>> outputs = Outputs(torch.ones(2, 3), (torch.zeros(2, 4, 5, 5),), torch.ones(2, 4))
            >>> Layout.of(outputs).packed(outputs).shape
            torch.Size([2, 107])
        """
        parts = [outputs.logits, *outputs.stages, *([] if outputs.embedding is None else [outputs.embedding])]
        return torch.cat([one.float().flatten(1) for one in parts], dim=1)

    def unpacked(self, rows: Tensor) -> Outputs:
        """Return the outputs of rows that `packed` gave."""
        logits, *rest = torch.split(rows, self.sizes, dim=1)
        embedding = rest.pop() if self.embedding else None
        stages = (one.reshape(len(rows), *shape) for one, shape in zip(rest, self.stages, strict=True))
        return Outputs(logits, tuple(stages), embedding)


class KeptOutputs:
    """A teacher that runs once for each image and view, although its stages or embedding are read."""

    def __init__(
        self, network: Callable[[Tensor], Outputs], example: Tensor, opened: OpenAnswers, facts: Mapping[str, object]
    ) -> None:
        """Run it once for the shapes, and open what is remembered.

        Args:
            network: Images [batch, channels, height, width] -> outputs.
            example: A few images on the network's device.
            opened: Where the rows lie.
            facts: Which modules are read.
        """
        self._network = network
        with torch.no_grad():
            self._layout = Layout.of(network(example))
        shapes = {"stages": [list(one) for one in self._layout.stages], "embedding": self._layout.embedding}
        self._answers = opened(sum(self._layout.sizes), {**facts, "shapes": shapes})

    def __call__(self, batch: Batch) -> Outputs:
        """Return the outputs for a batch, float32, rounded as the rows are kept."""

        def ask(places: Tensor) -> Tensor:
            rows = self._layout.packed(self._network(images_at(batch, places)))
            _check_range(rows)
            return rows

        return self._layout.unpacked(self._answers.answers(batch.rows, batch.view, ask))


def _check_range(rows: Tensor) -> None:
    """Raise a StageError for numbers that halves can't hold: a clipped feature would be a wrong target."""
    largest = float(rows.abs().max())
    if not largest <= LARGEST_FP16:
        raise StageError(
            f"what is read of the teacher reaches {largest:,g}, and is kept as halves, which end at {LARGEST_FP16:,g}",
            hint="set keep_features to false",
            code="MKD-402",
        )


def images_at(batch: Batch, places: Tensor) -> Tensor:
    """Return the images at some places of a batch; a whole batch is not copied."""
    return batch.images if len(places) == len(batch.rows) else batch.images[places]
