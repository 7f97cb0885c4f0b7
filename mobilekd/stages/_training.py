"""Options and files that the training stages share."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from mobilekd.artifacts import Artifact, Dataset, write_json
from mobilekd.errors import ConfigError
from mobilekd.paths import path_of
from mobilekd.stage import Ahead, Context, Inputs, Stage
from mobilekd.stages._curves import curves
from mobilekd.stages._packages import missing_cuda, missing_packages
from mobilekd.stages._rehearsal import Rehearsal, rehearsal
from mobilekd.training.networks import check_name, source_files

if TYPE_CHECKING:
    from torch import Tensor, nn

    from mobilekd.method import Batch
    from mobilekd.training.data import Images
    from mobilekd.training.loop import History, Recipe

_SEEN_IMAGES = 2048


class TrainingStage(Stage):
    """How to train; see `mobilekd.training.loop.Recipe` and `mobilekd.training.augmentation.Augmentation` for each."""

    tools: ClassVar[tuple[str, ...]] = ("torch", "timm", "numpy")
    parallel: ClassVar[bool] = True

    epochs: int = Field(default=20, ge=0, le=10000)
    batch_size: int = Field(default=64, ge=2)
    train_images: int = Field(default=0, ge=0)
    views: int = Field(default=0, ge=0)
    sampling: Literal["shuffled", "balanced"] = "shuffled"

    optimizer: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float = Field(default=3e-3, gt=0)
    base_batch_size: int = Field(default=0, ge=0)
    schedule: Literal["cosine", "step", "onecycle"] = "cosine"
    warmup: float = Field(default=0.1, ge=0, lt=1)
    weight_decay: float = Field(default=0.05, ge=0)
    ema: float = Field(default=0.0, ge=0, lt=1)
    patience: int = Field(default=0, ge=0)

    shift_pixels: int = Field(default=3, ge=0)
    flip: bool = False
    cutout_pixels: int = Field(default=0, ge=0)
    randaugment: int = Field(default=0, ge=0)
    randaugment_magnitude: int = Field(default=9, ge=0, le=30)
    mixup: float = Field(default=0.0, ge=0)
    cutmix: float = Field(default=0.0, ge=0)
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)

    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    compile: bool = False
    accumulation: int = Field(default=1, ge=1)
    workers: int = Field(default=0, ge=0)
    threads: int = Field(default=2, ge=1)
    seed: int = 0

    def missing(self) -> tuple[str, ...]:
        """Return the packages of the `train` extra that are not installed, or the device that is not there."""
        packages = ("torch", "timm", "torchvision", "safetensors", "PIL", "sklearn")
        return missing_packages("train", packages) or missing_cuda(self.device, self.precision)

    def recipe(self) -> "Recipe":
        """Return the training options as the loop takes them."""
        from mobilekd.training.augmentation import Augmentation
        from mobilekd.training.loop import Recipe

        names = Recipe.__dataclass_fields__.keys() & type(self).model_fields.keys()
        augmentation = Augmentation(**{name: getattr(self, name) for name in Augmentation.__dataclass_fields__})
        return Recipe(**{name: getattr(self, name) for name in names}, augmentation=augmentation)


class NetworkStage(TrainingStage):
    """A training stage that starts from a network by name.

    Attributes:
        network: timm:NAME or python:package.module:factory.
        pretrained: timm's published weights.
        checkpoint: A state dict to start from: safetensors, or a pickle of tensors only.
    """

    places: ClassVar[tuple[str, ...]] = ("checkpoint",)

    network: str
    pretrained: bool = False
    checkpoint: str = ""

    @field_validator("network")
    @classmethod
    def _network_is_known(cls, name: str) -> str:
        return check_name(name)

    @model_validator(mode="after")
    def _is_trained_somewhere(self) -> Self:
        if self.epochs == 0 and not (self.checkpoint or self.pretrained):
            name = self.stage_name()
            told = f"{name}.epochs is 0, and there is neither {name}.checkpoint nor {name}.pretrained"
            raise ConfigError(told, hint="give the weights of a trained network, or train one", code="MKD-251")
        return self

    def checkpoint_path(self) -> Path | None:
        """Return where the checkpoint lies; None without one."""
        return path_of(self.checkpoint) if self.checkpoint else None

    def sources(self, scan: Callable[[Path], str]) -> Mapping[str, str]:
        """Return the digests of the user's module and checkpoint."""
        files = source_files(self.network, self.checkpoint_path())
        return {name: scan(path) for name, path in files.items()}

    def rehearse(self, before: Sequence[Ahead]) -> None:
        """Try the networks, where the data are known."""
        if found := rehearsal(before):
            self.try_networks(found)

    def try_networks(self, rehearsal: Rehearsal) -> None:
        """Build the network, load its checkpoint, and give it two empty images."""
        rehearsal.network(self.network, self.checkpoint_path())

    def build_network(self, images: "Images", *, generation: int = 0) -> "nn.Module":
        """Return the network, checked against the data; its new weights are seeded with seed + generation."""
        import torch

        from mobilekd.training import networks

        torch.manual_seed(self.seed + generation)
        torch.set_num_threads(self.threads)
        classes = len(images.facts.classes)
        network = networks.build(self.network, classes, pretrained=self.pretrained, checkpoint=self.checkpoint_path())
        networks.check_output(network, self.network, torch.from_numpy(images.normalized(slice(0, 2))), classes)
        return networks.channels_last(network)

    def train_alone(self, inputs: Inputs, context: Context) -> None:
        """Train with cross-entropy on the labels and write the result."""
        from torch.nn.functional import cross_entropy

        from mobilekd.training.loop import Run, fit

        name = self.stage_name()
        train, validation, test = open_splits(inputs)
        network = self.build_network(train)

        def loss(batch: "Batch") -> "dict[str, Tensor]":
            return {"hard": cross_entropy(network(batch.images), batch.targets)}

        checkpoint = context.scratch / "checkpoint.pt"
        with curves(context, name) as watch:
            run = Run(name, network, loss, train, validation, checkpoint, context.progress, watch=watch)
            history = fit(run, self.recipe())
        facts = {"network": self.network, "classes": len(train.facts.classes)}
        write_result(context.out, network, facts=facts, history=history, test=test, known=(train, validation))


def open_splits(inputs: Inputs) -> "tuple[Images, Images, Images]":
    """Return the images to train with, to validate with and to test with."""
    from mobilekd.training.data import open_split

    folder = inputs.newest(Dataset).path
    return open_split(folder, "train"), open_split(folder, "calibration"), open_split(folder, "test")


def write_result(
    folder: Path,
    network: "nn.Module",
    *,
    facts: Mapping[str, object],
    history: "History",
    test: "Images",
    known: "tuple[Images, Images] | None" = None,
) -> None:
    """Write what a training stage leaves: weights, network.json, history.json, metrics.json, test_logits.npy.

    Args:
        folder: To write to.
        network: As trained.
        facts: For network.json.
        history: Of the loop.
        test: The test split.
        known: Training and validation images; given, metrics.json has the top-1 on both (of 2,048 training images):
            a teacher's gap between them says whether it is over-fitted.
    """
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
    if known is None and history:
        metrics["top1_validation"] = history[-1].get("top1")
    if known is not None:
        train, validation = known
        seen = replace(train, images=train.images[:_SEEN_IMAGES], labels=train.labels[:_SEEN_IMAGES])
        metrics["top1_train"] = top1(predict(network, seen), seen.labels)
        metrics["top1_validation"] = top1(predict(network, validation), validation.labels)
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
