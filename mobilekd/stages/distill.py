"""Train the student from what the teacher answers and computes."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import Field, model_validator

from mobilekd import artifacts
from mobilekd.artifacts import Dataset, Teacher, digest_file
from mobilekd.methods.kd import Kd
from mobilekd.paths import path_of
from mobilekd.stage import GIVEN, Context, Inputs
from mobilekd.stages._curves import curves
from mobilekd.stages._distillation import ExtraTeacher, LayerPair, MethodOptions
from mobilekd.stages._rehearsal import Rehearsal
from mobilekd.stages._soft_labels import SoftLabelStore, open_store, weights_digest
from mobilekd.stages._teachers import judged
from mobilekd.stages._training import NetworkStage, load_network, network_facts, open_splits, write_result
from mobilekd.training.history import terms_of
from mobilekd.training.networks import source_files
from mobilekd.training.strategy import Combine, Part, Strategy

if TYPE_CHECKING:
    from torch import Tensor, nn

    from mobilekd.training.data import Images
    from mobilekd.training.diagnosis import Diagnosis
    from mobilekd.training.loop import History
    from mobilekd.training.objective import TeacherNetwork
    from mobilekd.training.soft_labels import SoftLabels

Metrics = dict[str, float | None]


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
        soft_label_top: Logits of an image that are kept when a teacher's answers are cached (with `views` above 0); 0
            keeps all. The rest of the probability is spread evenly.
        keep_features: Keep stages and embedding too where methods read them (with `views` above 0), so that the teacher
            runs once for each image and view; the stage says how many bytes that takes.
    """

    needs = (Dataset, Teacher)
    makes: ClassVar[type[artifacts.Artifact]] = artifacts.Student
    version: ClassVar[int] = 6  # 6: beta of dkd is 1; network.json names the teacher, and what extra teachers are worth

    layers: tuple[LayerPair, ...] = ()
    student_stages: tuple[str, ...] = ()
    teacher_stages: tuple[str, ...] = ()
    soft_first: float = Field(default=0.0, ge=0, le=1)
    extra_teachers: tuple[ExtraTeacher, ...] = ()
    combine: Combine = "mean"
    generations: int = Field(default=1, ge=1)
    soft_label_top: int = Field(default=0, ge=0)
    keep_features: bool = False

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
        if self.keep_features and not self.views:
            raise ValueError("keep_features needs views above 0: without views no image comes twice in the same view")
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

    def outline(self) -> Mapping[str, str]:
        """Return the loss and when the teacher runs; nothing where nothing is trained."""
        return super().outline() if self.epochs else {}

    def _keeps_answers(self) -> bool:
        return self.views > 0 and (self.keep_features or not self.strategy().uses_features())

    def sources(self, scan: Callable[[Path], str]) -> Mapping[str, str]:
        """Return the digests of the user's modules and checkpoints, those of extra teachers among them."""
        found = dict(super().sources(scan))
        for index, one in enumerate(self.extra_teachers):
            for role, path in source_files(one.network, path_of(one.checkpoint)).items():
                found[f"extra_teachers[{index}].{role}"] = scan(path)
        return found

    def recorded_options(self) -> dict[str, Any]:
        """Return the options without the places of checkpoints."""
        extra = [{**one.model_dump(mode="json"), "checkpoint": GIVEN} for one in self.extra_teachers]
        return {**super().recorded_options(), "extra_teachers": extra}

    def try_networks(self, rehearsal: Rehearsal) -> None:
        """Build all networks but a teacher that is asked for logits alone, and read the modules that are named."""
        strategy = self.strategy()
        for one in self.extra_teachers:
            rehearsal.network(one.network, path_of(one.checkpoint))
        student = rehearsal.network(self.network, self.checkpoint_path())
        if strategy.uses_features():
            rehearsal.taps(student, strategy)

    def run(self, inputs: Inputs, context: Context) -> None:
        """Train; the teacher sees the very pixels that the student sees."""
        from mobilekd.training.diagnosis import FILE, write_diagnoses
        from mobilekd.training.loop import Run, fit
        from mobilekd.training.objective import TeacherNetwork

        splits = open_splits(inputs)
        strategy = self.strategy()
        store = open_store(self, context, inputs, splits[0], self.soft_label_top)
        teachers = self._teachers(inputs, splits[0], store)
        teacher_metrics = _read(inputs.newest(Teacher).path, "metrics.json")
        learned_from = {"teacher": network_facts(inputs.newest(Teacher))["network"]}
        learned_from |= self._judge(learned_from["teacher"], teachers, splits[1], context)
        tops: list[float | None] = []
        for generation in range(self.generations):
            network = self.build_network(splits[0], generation=generation)
            objective = self.objective(network, teachers, splits[0], strategy)
            title = self._title(generation)
            context.progress.say(
                f"{title}: {objective.describe()}; {objective.teacher_use()}{self._advice(generation)}"
            )
            checkpoint = context.scratch / f"checkpoint-{title.replace('/', '-of-')}.pt"
            run = Run(title, network, objective, *splits[:2], checkpoint, context.progress, adapters=objective.adapters)
            with curves(context, title, teacher_metrics.get("top1_validation")) as watch:
                history = fit(replace(run, watch=watch), self.recipe())
            objective.close()
            store.tell()
            tops.append(history[-1].get("top1") if history else None)
            strategy = strategy.born_again()
            teachers = (TeacherNetwork(network, soft_labels=self._kept_of(network, strategy, store)),)
        facts = self._facts(teacher_metrics, len(splits[0].facts.classes)) | learned_from
        facts |= {"top1_of_generations": tops} if self.generations > 1 else {}
        write_result(context.out, network, facts=facts, history=history, test=splits[2])
        found = self._diagnoses(history, teacher_metrics, context.out, splits[2])
        write_diagnoses(context.out / FILE, found)

    def _layer_parts(self) -> tuple[Part, ...]:
        return tuple(one.part() for one in self.layers)

    def _advice(self, generation: int) -> str:
        """Return what would let the teacher run less; that of a later generation is new, so nothing is kept of it."""
        reads_features = any(part.method.weight and part.method.uses_features() for part in self.strategy().parts)
        could_keep = not generation and reads_features and 0 < self.views < self.epochs and not self.keep_features
        return f" ({self.stage_name()}.keep_features = true would keep that)" if could_keep else ""

    def _title(self, generation: int) -> str:
        return self.stage_name() + (f"-{generation + 1}/{self.generations}" if self.generations > 1 else "")

    def _teachers(self, inputs: Inputs, train: "Images", store: SoftLabelStore) -> "tuple[TeacherNetwork, ...]":
        from mobilekd.training import networks
        from mobilekd.training.objective import TeacherNetwork

        classes = len(train.facts.classes)
        teacher = inputs.newest(Teacher)
        built, digests = [load_network(teacher)], [teacher.digest]
        for one in self.extra_teachers:
            network = networks.build(one.network, classes, checkpoint=path_of(one.checkpoint))
            networks.check_output(network, one.network, _two(train), classes)
            built.append(networks.channels_last(network.eval()))
            files = source_files(one.network, path_of(one.checkpoint))
            digests.append(" ".join([one.network, *(digest_file(path) for path in files.values())]))
        weights = (1.0, *(one.weight for one in self.extra_teachers))
        # Features are those of the first teacher, and its logits come with them.
        has_features = self.strategy().uses_features()
        kept = store.features_of(teacher) if has_features and self.keep_features else None
        soft = [None if has_features and not index else store.of(digest) for index, digest in enumerate(digests)]
        first, *others = (TeacherNetwork(*one) for one in zip(built, weights, soft, strict=True))
        return replace(first, features=kept), *others

    def _kept_of(self, network: "nn.Module", strategy: Strategy, store: SoftLabelStore) -> "SoftLabels | None":
        """Return where the logits of a generation are kept for the next; with features read they come from a run."""
        if strategy.uses_features():
            return None
        files = [digest_file(path) for path in source_files(self.network, None).values()]
        return store.of(" ".join([self.network, *files, weights_digest(network)]))

    def _judge(
        self, first: str, teachers: "Sequence[TeacherNetwork]", validation: "Images", context: Context
    ) -> dict[str, object]:
        """Say what several teachers are worth and return it; one alone was judged by its own stage."""
        if not self.extra_teachers:
            return {}
        names = (first, *(one.network for one in self.extra_teachers))
        found = judged(names, teachers, validation, self.combine)
        for line in found.told():
            context.progress.say(f"{self.stage_name()}: {line}")
        return found.facts()

    def _diagnoses(self, history: "History", teacher: Metrics, student: Path, test: "Images") -> "list[Diagnosis]":
        import numpy as np

        from mobilekd.training.diagnosis import DistillFacts, diagnose

        parts = self.strategy().parts
        is_one = len(parts) == 1
        features = [part.label for part in parts if part.method.uses_features()]
        names = dict.fromkeys(name for record in history for name in terms_of(record) if name != "hard")
        facts = DistillFacts(
            history=history,
            student_top1=_read(student, "metrics.json")["top1_test"] or 0.0,
            teacher_top1=teacher["top1_test"] or 0.0,
            temperature=next((part.method.temperature for part in parts if isinstance(part.method, Kd)), None),
            learning_rate=self.learning_rate,
            optimizer=self.optimizer,
            teacher_train_top1=teacher.get("top1_train"),
            teacher_validation_top1=teacher.get("top1_validation"),
            feature_terms=tuple(one for one in names if features and (is_one or one.partition(".")[0] in features)),
            largest_class=float(np.bincount(test.labels).max() / len(test)),
            test_images=len(test),
            teacher=_read(student, "network.json")["teacher"],
        )
        return diagnose(facts)

    def _facts(self, metrics: Metrics, classes: int) -> dict[str, object]:
        strategy = self.strategy()
        return {
            "network": self.network,
            "classes": classes,
            "method": [part.label for part in strategy.parts],
            "feature_methods": [part.label for part in strategy.parts if part.method.uses_features()],
            "objective": strategy.describe(),
            "teacher_top1": metrics.get("top1_validation"),
            "extra_teachers": [one.network for one in self.extra_teachers],
        }


def _read(folder: Path, file: str) -> Any:
    return json.loads((folder / file).read_text(encoding="utf-8"))


def _two(images: "Images") -> "Tensor":
    import torch

    return torch.from_numpy(images.normalized(slice(0, 2)))
