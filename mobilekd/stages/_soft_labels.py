"""Where the logits of a distillation's teachers are kept: beside the cache's stages, shared by all builds."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mobilekd.artifacts import Dataset
from mobilekd.stage import Context, Inputs
from mobilekd.stages._training import TrainingStage

if TYPE_CHECKING:
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
        """Return the cache of a teacher, named by its digest; None where no view of an image comes twice."""
        if not self.stage.views or self.context.soft_labels is None:
            return None
        from mobilekd.training.device import choose
        from mobilekd.training.soft_labels import SoftLabels, folder_name

        recipe = self.stage.recipe()
        facts = {
            "teacher": teacher,
            "data": self.dataset.digest,
            "augmentation": recipe.augmentation.pixel_facts(),
            "seed": recipe.view_seed,
            "precision": recipe.precision,
            "device": choose(recipe.device).type,
            "top": self.top,
        }
        folder = self.context.soft_labels / folder_name(facts)
        self.opened.append(SoftLabels(folder, len(self.train), len(self.train.facts.classes), self.top))
        return self.opened[-1]

    def tell(self) -> None:
        """Say what came from the caches."""
        for one in self.opened:
            if one.served.cached or one.served.asked:
                self.context.progress.say(f"{self.stage.stage_name()}: {one.told()}")


def open_store(stage: TrainingStage, context: Context, inputs: Inputs, train: "Images", top: int) -> SoftLabelStore:
    """Return the store of a stage that trains on the newest data set."""
    return SoftLabelStore(stage, context, inputs.newest(Dataset), train, top, [])
