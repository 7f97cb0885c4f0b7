"""Train the student from what the teacher answers and computes."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self

from pydantic import Field, model_validator

from mobilekd import artifacts
from mobilekd.artifacts import Dataset, Teacher
from mobilekd.stage import Context, Inputs
from mobilekd.stages._distillation import ExtraTeacher, LayerPair, MethodOptions
from mobilekd.stages._training import NetworkStage, load_network, open_splits, write_result
from mobilekd.training.networks import source_files
from mobilekd.training.strategy import Combine, Part, Strategy

if TYPE_CHECKING:
    from torch import Tensor, nn

    from mobilekd.training.data import Images
    from mobilekd.training.loop import History
    from mobilekd.training.objective import Objective, SoftAnswers, TeacherNetwork


class Distill(MethodOptions, NetworkStage):
    """Options of the student; those that choose and weigh methods: `MethodOptions`.

    Attributes:
        layers: Pairs of layers, each with a method and weight of its own, beside `method`.
        student_stages, teacher_stages: Modules whose feature maps the methods compare, shallow to deep; empty: found.
            Of lists of different length the deepest are paired.
        soft_first: Share of the run with the methods on logits alone, before labels and features count.
        extra_teachers: Teachers beside that of the pipeline; methods on features read that of the pipeline alone.
        combine: How the teachers' logits become one: "mean"; "weighted" by `weight` (that of the pipeline counts 1); or
            "confidence": for each image by how right each teacher is.
        generations: Born-again training: so many students of this network in a row, the first from the teacher, each
            next one from the one before (https://arxiv.org/abs/1805.04770); the last is kept.
    """

    needs = (Dataset, Teacher)
    makes: ClassVar[type[artifacts.Artifact]] = artifacts.Student
    version: ClassVar[int] = 2

    layers: tuple[LayerPair, ...] = ()
    student_stages: tuple[str, ...] = ()
    teacher_stages: tuple[str, ...] = ()
    soft_first: float = Field(default=0.0, ge=0, le=1)
    extra_teachers: tuple[ExtraTeacher, ...] = ()
    combine: Combine = "mean"
    generations: int = Field(default=1, ge=1)

    @model_validator(mode="after")
    def _options_hold_together(self) -> Self:
        strategy = self.strategy()
        labels = [part.label for part in strategy.parts]
        if len(set(labels)) < len(labels):
            raise ValueError("layers names the same student layer twice with one method")
        if self.student_stages and self.teacher_stages and len(self.student_stages) != len(self.teacher_stages):
            counts = f"{len(self.student_stages)} and {len(self.teacher_stages)}"
            raise ValueError(f"student_stages and teacher_stages name {counts} modules; name as many in both")
        if self.soft_first and not any(
            part.method.weight and not part.method.uses_features() for part in strategy.parts
        ):
            raise ValueError("soft_first needs a method on logits; set soft_weight above 0, which adds kd")
        if self.combine != "mean" and not self.extra_teachers:
            raise ValueError(f"combine is {self.combine!r} with one teacher; name extra_teachers or leave it out")
        if self.combine != "weighted" and any(one.weight != 1 for one in self.extra_teachers):
            raise ValueError(f"a weight of extra_teachers counts with combine = 'weighted' only, not {self.combine!r}")
        return self

    def strategy(self) -> Strategy:
        """Return what the options mean together."""
        return replace(
            super().strategy(),
            soft_first=self.soft_first,
            combine=self.combine,
            student_stages=self.student_stages,
            teacher_stages=self.teacher_stages,
        )

    def sources(self, scan: Callable[[Path], str]) -> Mapping[str, str]:
        """Return the digests of the user's modules and checkpoints, those of extra teachers among them."""
        found = dict(super().sources(scan))
        for index, one in enumerate(self.extra_teachers):
            for path in source_files(one.network, Path(one.checkpoint).expanduser()):
                found[f"extra_teachers[{index}]: {path.name}"] = scan(path)
        return found

    def run(self, inputs: Inputs, context: Context) -> None:
        """Train; the teacher sees the very pixels that the student sees."""
        from mobilekd.training.objective import TeacherNetwork

        splits = open_splits(inputs)
        strategy = self.strategy()
        teachers = self._teachers(inputs, context, splits[0])
        tops: list[float | None] = []
        for generation in range(self.generations):
            network = self.build_network(splits[0], generation=generation)
            objective = self.objective(network, teachers, splits[0], strategy)
            history = self._fit(network, objective, splits, context, generation)
            objective.close()
            tops.append(history[-1].get("top1") if history else None)
            if generation + 1 < self.generations:
                soft_labels = self._soft_labels(context, splits[0], f"generation{generation + 1}")
                teachers, strategy = (TeacherNetwork(network, soft_labels=soft_labels),), strategy.born_again()
        facts = self._facts(inputs, len(splits[0].facts.classes))
        facts |= {"top1_of_generations": tops} if self.generations > 1 else {}
        write_result(context.out, network, facts=facts, history=history, test=splits[2])

    def _layer_parts(self) -> tuple[Part, ...]:
        return tuple(one.part() for one in self.layers)

    def _fit(
        self,
        network: "nn.Module",
        objective: "Objective",
        splits: "tuple[Images, Images, Images]",
        context: Context,
        generation: int,
    ) -> "History":
        from mobilekd.training.loop import Run, fit

        title = self.stage_name() + (f" {generation + 1}/{self.generations}" if self.generations > 1 else "")
        context.progress.say(f"{title}: {objective.describe()}; {objective.teacher_use()}")
        checkpoint = context.scratch / f"checkpoint{generation + 1}.pt"
        run = Run(
            title, network, objective, *splits[:2], checkpoint, context.progress, adapters=objective.adapters
        )  # fmt: skip
        return fit(run, self.recipe())

    def _teachers(self, inputs: Inputs, context: Context, train: "Images") -> "tuple[TeacherNetwork, ...]":
        from mobilekd.training import networks
        from mobilekd.training.objective import TeacherNetwork

        classes = len(train.facts.classes)
        built = [load_network(inputs.newest(Teacher))]
        for one in self.extra_teachers:
            network = networks.build(one.network, classes, checkpoint=Path(one.checkpoint).expanduser())
            networks.check_output(network, one.network, _two(train), classes)
            built.append(networks.channels_last(network.eval()))
        weights = (1.0, *(one.weight for one in self.extra_teachers))
        return tuple(
            TeacherNetwork(network, weight, self._soft_labels(context, train, f"teacher{index + 1}"))
            for index, (network, weight) in enumerate(zip(built, weights, strict=True))
        )

    def _soft_labels(self, context: Context, train: "Images", name: str) -> "SoftAnswers | None":
        """Return where a teacher's logits are remembered; None where no view comes twice or the teacher runs anyway."""
        if not self.views or self.strategy().uses_features():
            return None
        from mobilekd.training.soft_labels import SoftLabels

        return SoftLabels(context.scratch / "soft_labels" / name, len(train), len(train.facts.classes))

    def _facts(self, inputs: Inputs, classes: int) -> dict[str, object]:
        strategy = self.strategy()
        metrics = json.loads((inputs.newest(Teacher).path / "metrics.json").read_text(encoding="utf-8"))
        return {
            "network": self.network,
            "classes": classes,
            "method": [part.label for part in strategy.parts],
            "objective": strategy.describe(),
            "teacher_top1": metrics.get("top1_validation"),
            "extra_teachers": [one.network for one in self.extra_teachers],
        }


def _two(images: "Images") -> "Tensor":
    import torch

    return torch.from_numpy(images.normalized(slice(0, 2)))
