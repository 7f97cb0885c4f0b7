"""What training stages try before a build runs: their networks, new, with two empty images of the data's size."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mobilekd.artifacts import Artifact, Dataset, Teacher
from mobilekd.errors import ConfigError
from mobilekd.stage import Ahead
from mobilekd.stages.data import Data
from mobilekd.training import networks

if TYPE_CHECKING:
    from torch import Tensor, nn

    from mobilekd.training.strategy import Strategy


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What is known before the data are decoded.

    Attributes:
        teacher: Name of the network that the stage will learn from; empty where there is none, or it is not known.
    """

    classes: int
    image_size: int
    teacher: str

    def network(self, name: str, checkpoint: Path | None = None) -> "nn.Module":
        """Return a network with the weights of its checkpoint or new ones, never with those that timm downloads.

        Raises:
            ConfigError: It can't be made, the checkpoint is not its own, or it refuses images of this size.
        """
        import torch

        with torch.random.fork_rng(devices=[]):
            network = networks.build(name, self.classes, checkpoint=checkpoint)
            networks.check_output(network, name, self._images(), self.classes)
        return network

    def taps(self, student: "nn.Module", strategy: "Strategy") -> None:
        """Read what the methods read of student and teacher.

        Raises:
            ConfigError: A module that is named does not exist, or a network has no feature maps or no embedding.
        """
        import torch

        from mobilekd.training.pairing import compared, taps_of

        if not self.teacher:
            return
        teacher, images = self.network(self.teacher), self._images()
        with torch.no_grad():
            pairs = compared(student, teacher, strategy, images)
            for network, paths in ((student, [one for one, _ in pairs]), (teacher, [one for _, one in pairs])):
                taps_of(network, tuple(paths), strategy)(images)

    def _images(self) -> "Tensor":
        import torch

        return torch.zeros(2, 3, self.image_size, self.image_size)


def rehearsal(before: Sequence[Ahead]) -> Rehearsal | None:
    """Return what is known of data and teacher; None where the number of classes is not."""
    shape = _shape(_newest(before, Dataset))
    return Rehearsal(*shape, _network_of(_newest(before, Teacher))) if shape else None


def _newest(before: Sequence[Ahead], kind: type[Artifact]) -> Ahead | None:
    return next((one for one in reversed(before) if issubclass(one.stage.makes, kind)), None)


def _shape(data: Ahead | None) -> tuple[int, int] | None:
    """Return the number of classes and the side of an image; a fault of the data is left to the stage that reads it."""
    from mobilekd.training.data import read_facts

    if data and data.made:
        facts = read_facts(data.made.path)
        return len(facts.classes), facts.image_size[0]
    try:
        return (data.stage.class_count(), data.stage.image_size) if data and isinstance(data.stage, Data) else None
    except ConfigError:
        return None


def _network_of(teacher: Ahead | None) -> str:
    return str(getattr(teacher.stage, "network", "")) if teacher else ""
