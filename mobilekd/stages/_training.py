"""Options and files that the three training stages share."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from pydantic import Field, field_validator

from mobilekd.artifacts import Artifact, write_json
from mobilekd.method import Method
from mobilekd.stage import Stage
from mobilekd.stages._packages import missing_packages
from mobilekd.training.networks import check_name, source_files

if TYPE_CHECKING:
    from torch import Tensor, nn

    from mobilekd.training.data import Images
    from mobilekd.training.loop import History, Loss, Recipe


class TrainingStage(Stage):
    """How to train; see `mobilekd.training.loop.Recipe` for each."""

    tools: ClassVar[tuple[str, ...]] = ("torch", "timm", "numpy")

    epochs: int = Field(default=20, ge=0, le=10000)
    batch_size: int = Field(default=64, ge=2)
    learning_rate: float = Field(default=3e-3, gt=0)
    weight_decay: float = Field(default=0.05, ge=0)
    optimizer: Literal["adamw", "sgd"] = "adamw"
    shift_pixels: int = Field(default=3, ge=0)
    flip: bool = False
    threads: int = Field(default=2, ge=1)
    seed: int = 0

    def missing(self) -> tuple[str, ...]:
        """Return the packages of the `train` extra that are not installed."""
        return missing_packages("train", ("torch", "timm", "torchvision", "safetensors", "PIL", "sklearn"))

    def recipe(self) -> "Recipe":
        """Return the training options as the loop takes them."""
        from mobilekd.training.loop import Recipe

        names = Recipe.__dataclass_fields__.keys() & type(self).model_fields.keys()
        return Recipe(**{name: getattr(self, name) for name in names})


class NetworkStage(TrainingStage):
    """A training stage that starts from a network by name.

    Attributes:
        network: timm:NAME or python:package.module:factory.
        pretrained: timm's published weights.
        checkpoint: A state dict to start from: safetensors, or a pickle of tensors only.
    """

    network: str
    pretrained: bool = False
    checkpoint: str = ""

    @field_validator("network")
    @classmethod
    def _network_is_known(cls, name: str) -> str:
        return check_name(name)

    def checkpoint_path(self) -> Path | None:
        """Return where the checkpoint lies; None without one."""
        return Path(self.checkpoint).expanduser() if self.checkpoint else None

    def sources(self, scan: Callable[[Path], str]) -> Mapping[str, str]:
        """Return the digests of the user's module and checkpoint."""
        files = source_files(self.network, self.checkpoint_path())
        return {path.name: scan(path) for path in files}

    def build_network(self, images: "Images") -> "nn.Module":
        """Return the seeded network, checked against the data."""
        import torch

        from mobilekd.training import networks

        torch.manual_seed(self.seed)
        torch.set_num_threads(self.threads)
        classes = len(images.facts.classes)
        network = networks.build(self.network, classes, pretrained=self.pretrained, checkpoint=self.checkpoint_path())
        networks.check_output(network, self.network, torch.from_numpy(images.normalized(slice(0, 2))), classes)
        return networks.channels_last(network)


def write_result(
    folder: Path, network: "nn.Module", *, facts: Mapping[str, object], history: "History", test: "Images"
) -> None:
    """Write what a training stage leaves: weights, network.json, history.json, metrics.json, test_logits.npy."""
    import numpy as np
    import safetensors.torch

    from mobilekd.training.loop import predict, top1

    logits = predict(network, test)
    tensors = {name: value.detach().contiguous().clone() for name, value in network.state_dict().items()}
    safetensors.torch.save_file(tensors, folder / "model.safetensors")
    write_json(folder / "network.json", dict(facts))
    write_json(folder / "history.json", history)
    np.save(folder / "test_logits.npy", logits)
    metrics: dict[str, object] = {
        "parameters": sum(one.numel() for one in network.parameters()),
        "top1_test": top1(logits, test.labels),
    }
    if history:
        metrics["top1_validation"] = history[-1].get("top1")
    write_json(folder / "metrics.json", metrics)


def network_facts(artifact: Artifact) -> dict[str, Any]:
    """Return network.json of a trained network: "network", "classes", and what its stage added."""
    facts: dict[str, Any] = json.loads((artifact.path / "network.json").read_text(encoding="utf-8"))
    return facts


def load_network(artifact: Artifact) -> "nn.Module":
    """Return the trained network of a Teacher or Student artifact, in evaluation mode."""
    import safetensors.torch

    from mobilekd.training import networks

    facts = network_facts(artifact)
    network = networks.build(facts["network"], facts["classes"])
    network.load_state_dict(safetensors.torch.load_file(artifact.path / "model.safetensors"))
    return networks.channels_last(network.eval())


def read_method(name: str, options: Mapping[str, Any]) -> Method:
    """Return a distillation method with its options set."""
    from mobilekd.plugins import METHODS

    method: type[Method] = METHODS.load(name)
    known = {key: value for key, value in options.items() if key in method.model_fields and value is not None}
    return method.model_validate(known)


def known_method(name: str) -> str:
    """Return the name of a distillation method if there is a file for it.

    Raises:
        ValueError: There is none; the message lists what there is.
    """
    from mobilekd.plugins import METHODS

    if name not in METHODS.names():
        raise ValueError(f"there is no method {name!r}; known: {', '.join(METHODS.names())}")
    return name


class Distils(Protocol):
    """A stage with a distillation method."""

    @property
    def method(self) -> str:
        """Name of the method."""

    @property
    def temperature(self) -> float:
        """Divides both logits."""

    @property
    def soft_weight(self) -> float:
        """Share of the teacher's term."""


def distillation_loss(stage: Distils, student: "nn.Module", teacher: "nn.Module") -> "Loss":
    """Return the loss of a stage's method, for a student and a teacher that see the same pixels."""
    import torch

    from mobilekd.method import Outputs

    method = read_method(stage.method, {"temperature": stage.temperature, "soft_weight": stage.soft_weight})

    def loss(images: "Tensor", labels: "Tensor") -> "Mapping[str, Tensor]":
        with torch.no_grad():
            target = Outputs(teacher(images))
        return method.terms(Outputs(student(images)), target, labels, None)

    return loss
