"""The loss of a distillation: labels, methods and teachers, weighted as a strategy says."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mobilekd.method import Batch, Method, Outputs, Sizes
from mobilekd.training.answers import KeptOutputs, OpenAnswers, SoftAnswers, images_at
from mobilekd.training.frozen import folded
from mobilekd.training.pairing import compared, taps_of
from mobilekd.training.strategy import Combine, Part, Strategy
from mobilekd.training.taps import evaluating


@dataclass(frozen=True, slots=True)
class TeacherNetwork:
    """A trained network, its weight among several, its remembered logits, and where to keep what else is read of it."""

    network: nn.Module
    weight: float = 1.0
    soft_labels: SoftAnswers | None = None
    features: OpenAnswers | None = None


class Objective:
    """hard_weight * cross-entropy(student, targets) + the weighted terms of every method that counts at the moment.

    The teachers are in evaluation mode and get no gradient. Stages and embedding are those of the first teacher;
    the logits are combined from all. Networks run in the autocast that the caller opens, terms in fp32.

    Attributes:
        adapters: Layers of the methods, to be trained with the student and dropped afterwards; None without any.
    """

    def __init__(
        self,
        student: nn.Module,
        teachers: Sequence[TeacherNetwork],
        strategy: Strategy,
        *,
        example: Tensor,
        sizes: Sizes,
        seed: int,
    ) -> None:
        """Find the stages and make the adapters.

        Args:
            student: In training.
            teachers: At least one.
            strategy: Weights, methods, stages.
            example: Two images [2, channels, height, width], normalised, on the networks' device.
            sizes: Of the data, for the adapters.
            seed: Of the adapters' weights.

        Raises:
            ConfigError: A stage or classifier is not found.
        """
        self.strategy = strategy
        for one in teachers:
            one.network.eval()
        layers = [part for part in strategy.parts if part.student]
        paths = compared(student, teachers[0].network, strategy, example)
        self._shared = len(paths) - len(layers)
        self._layer_index = {part.label: self._shared + index for index, part in enumerate(layers)}
        read = tuple(one for _, one in paths)
        self._student = taps_of(student, tuple(one for one, _ in paths), strategy)
        self._teachers = tuple(replace(one, network=folded(one.network, example, read)) for one in teachers)
        self._first_teacher = taps_of(self._teachers[0].network, read, strategy)
        self._kept = self._open_kept(example, read)
        self.adapters = self._make_adapters(student, example, sizes, seed)

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """Return the weighted terms by name, each 0-d; their sum is the loss."""
        hard_weight, parts = self.strategy.weights_at(batch.progress)
        student = self._student(batch.images)
        teacher = self._taught(batch) if parts else None
        terms: dict[str, Tensor] = {}
        # Squares and exponentials of features overflow in 16 bits.
        with torch.autocast(batch.images.device.type, enabled=False):
            student = _in_fp32(student)
            if hard_weight:
                terms["hard"] = hard_weight * cross_entropy(student.logits, batch.targets)
            for part, weight in parts:
                assert teacher is not None
                outputs = (self._of(part, student), self._of(part, _in_fp32(teacher)))
                for name, value in part.method.terms(*outputs, batch, self._adapter(part)).items():
                    terms[self._term_name(part, name)] = weight * value
        return terms or {"hard": 0.0 * student.logits.sum()}

    def close(self) -> None:
        """Take the hooks off student and teacher."""
        self._student.close()
        self._first_teacher.close()

    def describe(self) -> str:
        """Return the loss in one line."""
        return self.strategy.describe()

    def teacher_use(self) -> str:
        """Return in words when the teachers run."""
        first = self._kept if self.strategy.uses_features() else self._teachers[0].soft_labels
        others = (one.soft_labels for one in self._teachers[1:])
        return self.strategy.teacher_use(is_cached=all((first, *others)))

    def _taught(self, batch: Batch) -> Outputs:
        first: Outputs | None = None
        logits: list[Tensor] = []
        with torch.no_grad():
            for one in self._teachers:
                _move(one.network, batch.images.device)
            if self.strategy.uses_features():
                first = self._kept(batch) if self._kept else self._first_teacher(batch.images)
                logits = [first.logits, *(_asked(one, batch) for one in self._teachers[1:])]
            else:
                logits = [_asked(one, batch) for one in self._teachers]
            weights = [one.weight for one in self._teachers]
            whole = combined([one.float() for one in logits], batch.targets, self.strategy.combine, weights)
        return replace(first, logits=whole) if first else Outputs(whole)

    def _of(self, part: Part, outputs: Outputs) -> Outputs:
        """Return the outputs that a part compares."""
        if not part.student:
            return replace(outputs, stages=outputs.stages[: self._shared])
        return replace(outputs, stages=(outputs.stages[self._layer_index[part.label]],), embedding=None)

    def _open_kept(self, example: Tensor, read: tuple[str, ...]) -> KeptOutputs | None:
        opened = self._teachers[0].features
        if opened is None or not self.strategy.uses_features():
            return None
        return KeptOutputs(self._first_teacher, example, opened, {"read": list(read)})

    def _make_adapters(self, student: nn.Module, example: Tensor, sizes: Sizes, seed: int) -> nn.ModuleDict | None:
        makers = [part for part in self.strategy.parts if type(part.method).adapters is not Method.adapters]
        if not makers:
            return None
        with torch.no_grad(), evaluating(student):
            outputs = self._student(example), self._first_teacher(example)
        made: dict[str, nn.Module] = {}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for part in makers:
                adapter = part.method.adapters(self._of(part, outputs[0]), self._of(part, outputs[1]), sizes)
                if adapter is not None:
                    made[_module_name(part)] = adapter
        return nn.ModuleDict(made) if made else None

    def _adapter(self, part: Part) -> nn.Module | None:
        name = _module_name(part)
        return self.adapters[name] if self.adapters is not None and name in self.adapters else None

    def _term_name(self, part: Part, name: str) -> str:
        return name if len(self.strategy.parts) == 1 else f"{part.label}.{name}"


def combined(logits: Sequence[Tensor], targets: Tensor, combine: Combine, weights: Sequence[float]) -> Tensor:
    """Return one teacher's logits [batch, classes] for those of several.

    "mean" and "weighted" average logits, not probabilities: a method softens them with its own temperature, and the
    softmax of averaged logits is the normalised geometric mean of the teachers' softmaxes at every temperature.
    "confidence" weighs each teacher for each image by softmax(-cross-entropy with the target), which for a one-hot
    target is p_k[label] / sum of p_j[label]: after CA-MKD (https://arxiv.org/abs/2201.00007), whose weights are
    (1 - softmax(cross-entropy)) / (teachers - 1), the same order but closer together.

    Args:
        logits: Of each teacher [batch, classes], unnormalised.
        targets: [batch, classes], rows sum to 1.
        combine: How.
        weights: Of each teacher, for "weighted".
    """
    if len(logits) == 1:
        return logits[0]
    stacked = torch.stack(tuple(logits))
    if combine == "confidence":
        losses = torch.stack([cross_entropy(one, targets, reduction="none") for one in logits])
        return (torch.softmax(-losses, dim=0)[..., None] * stacked).sum(dim=0)
    shares = stacked.new_tensor(weights) if combine == "weighted" else stacked.new_ones(len(logits))
    return (shares[:, None, None] * stacked).sum(dim=0) / shares.sum()


def _asked(teacher: TeacherNetwork, batch: Batch) -> Tensor:
    def ask(places: Tensor) -> Tensor:
        logits: Tensor = teacher.network(images_at(batch, places))
        return logits

    if teacher.soft_labels:
        return teacher.soft_labels.answers(batch.rows, batch.view, ask)
    return ask(torch.arange(len(batch.rows)))


def _in_fp32(outputs: Outputs) -> Outputs:
    embedding = None if outputs.embedding is None else outputs.embedding.float()
    return Outputs(outputs.logits.float(), tuple(one.float() for one in outputs.stages), embedding)


def _module_name(part: Part) -> str:
    return part.label.replace(".", "/")  # a module's name can't hold a dot


def _move(network: nn.Module, device: torch.device) -> None:
    first = next(network.parameters(), None)
    if first is not None and first.device != device:
        network.to(device)
