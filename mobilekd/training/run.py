"""What a training run works on."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from mobilekd.method import Batch
from mobilekd.stage import Progress
from mobilekd.training.data import Images
from mobilekd.training.watching import Watch

Loss = Callable[[Batch], Mapping[str, Tensor]]
"""A batch -> named, weighted terms, each 0-d and a mean over the batch's images; the loop sums them."""

History = list[dict[str, float]]


@dataclass(frozen=True, slots=True)
class Run:
    """A network, its loss and data, where to resume, who follows it.

    Attributes:
        loss: Calls `network`; what else it computes with must be on the batch's device.
        in_train_mode: False keeps the network in evaluation mode: an exported QAT graph has its BatchNorm folded.
        adapters: Layers of the loss that are trained and check-pointed with the network.
        watch: Gets each epoch's record and speed.
        on_step: Gets the number of each step, from 0, and its terms; costs a wait for the device.
    """

    title: str
    network: nn.Module
    loss: Loss
    train: Images
    validation: Images
    checkpoint: Path
    progress: Progress
    in_train_mode: bool = True
    adapters: nn.Module | None = None
    watch: Watch | None = None
    on_step: Callable[[int, Mapping[str, float]], None] | None = None


class Silent:
    """The progress of a process whose sibling shows the same."""

    @contextmanager
    def bar(self, title: str, total: int) -> Iterator["Silent"]:
        """Show no bar."""
        del title, total
        yield self

    def advance(self, steps: int = 1, note: str = "") -> None:
        """Show nothing."""

    def say(self, line: str) -> None:
        """Say nothing."""
