"""Where the answers of a distillation's teachers are kept: beside the cache's stages, shared by all builds."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mobilekd.artifacts import Artifact, Dataset
from mobilekd.errors import StageError
from mobilekd.paths import free_bytes
from mobilekd.stage import Context, Inputs
from mobilekd.stages._training import TrainingStage
from mobilekd.units import readable_bytes

if TYPE_CHECKING:
    from torch import nn

    from mobilekd.training.answers import OpenAnswers
    from mobilekd.training.data import Images
    from mobilekd.training.soft_labels import SoftLabels


@dataclass(frozen=True, slots=True)
class SoftLabelStore:
    """Opens the cache of each teacher of one stage; what is open is in `opened`."""

    stage: TrainingStage
    context: Context
    dataset: Dataset
    train: "Images"
    top: int
    opened: "list[SoftLabels]"

    def of(self, teacher: str) -> "SoftLabels | None":
        """Return the logits of a teacher, named by its digest; None where no view of an image comes twice."""
        if not self._can_keep:
            return None
        return self._open("soft labels", len(self.train.facts.classes), self._facts(teacher), self.top)

    def features_of(self, teacher: Artifact) -> "OpenAnswers | None":
        """Return what opens the stages and the embedding of a teacher, its logits among them.

        Its digest holds its logits but not what its modules give on the way there: that is in its source.
        """
        if not self._can_keep:
            return None
        made = teacher.made_by
        origin = None if made is None else {"sources": dict(made.sources), "tools": dict(made.tools)}
        facts = {**self._facts(teacher.digest), "top": 0, "made_by": origin}

        def opened(width: int, more: Mapping[str, object]) -> "SoftLabels":
            kept = self._open("features", width, {**facts, "features": more})
            self._tell_size(kept)
            return kept

        return opened

    def _tell_size(self, kept: "SoftLabels") -> None:
        whole = kept.bytes_per_image * len(self.train) * self.stage.views
        free = free_bytes(kept.folder)
        there = sum(one.stat().st_size for one in kept.folder.glob("view-*.npy"))
        size = f"{kept.bytes_per_image:,} bytes an image and view, {readable_bytes(whole)} in all"
        name = self.stage.stage_name()
        if whole - there > free:
            raise StageError(
                f"{name}.keep_features: what is read of the teacher takes {size}, and {kept.folder.parent} has"
                f" {readable_bytes(free)} left",
                hint=f"set {name}.keep_features to false, or {name}.views below {self.stage.views};"
                " mobilekd cache prune frees what no build needs",
                code="MKD-430",
            )
        self.context.progress.say(f"{name}: what is read of the teacher is kept: {size}, in {kept.folder}")

    @property
    def _can_keep(self) -> bool:
        return bool(self.stage.views) and self.context.soft_labels is not None

    def _facts(self, teacher: str) -> dict[str, object]:
        from mobilekd.training.device import choose

        recipe = self.stage.recipe()
        return {
            "teacher": teacher,
            "data": self.dataset.digest,
            "augmentation": recipe.augmentation.pixel_facts(),
            "seed": recipe.view_seed,
            "precision": recipe.precision,
            "device": choose(recipe.device).type,
            "top": self.top,
        }

    def _open(self, title: str, width: int, facts: Mapping[str, object], top: int = 0) -> "SoftLabels":
        from mobilekd.training.soft_labels import SoftLabels, folder_name

        assert self.context.soft_labels is not None
        folder = self.context.soft_labels / folder_name(facts)
        self.opened.append(SoftLabels(folder, len(self.train), width, top, title))
        return self.opened[-1]

    def tell(self) -> None:
        """Say what came from the caches that were opened since this was called last."""
        for one in self.opened:
            if one.served.cached or one.served.asked:
                self.context.progress.say(f"{self.stage.stage_name()}: {one.told()}")
        self.opened.clear()


def weights_digest(network: "nn.Module") -> str:
    """Return the sha256 over all tensors of a network with their names, 64 hex digits."""
    import torch

    digest = hashlib.sha256()
    for name, value in network.state_dict().items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def open_store(stage: TrainingStage, context: Context, inputs: Inputs, train: "Images", top: int) -> SoftLabelStore:
    """Return the store of a stage that trains on the newest data set."""
    return SoftLabelStore(stage, context, inputs.newest(Dataset), train, top, [])
