"""Options of calibration, and what the stages that calibrate share."""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from mobilekd.artifacts import Student
from mobilekd.errors import ConfigError
from mobilekd.plugins import BACKENDS
from mobilekd.profile import Profile
from mobilekd.stage import Progress, Stage
from mobilekd.stages._training import load_network

if TYPE_CHECKING:
    from torch import Tensor
    from torch.fx import GraphModule

    from mobilekd.quantization.mixed import Mixed
    from mobilekd.quantization.post_training import PostTraining
    from mobilekd.quantization.sensitivity import Ranking
    from mobilekd.training.data import Images

_BATCH = 64
RANKED_IMAGES = 512
"""Images of the calibration split on which layers are ranked, unless told otherwise."""


class CalibrationStage(Stage):
    """How a float student becomes a calibrated int8 network.

    Attributes:
        symmetry: "symmetric" keeps zero points at 0, which every runtime takes.
        calibration_images: Training images that set the activation ranges.
        activation_range: "mse" (least squared error), "percentile" (99.99 %), "moving_average" or "minmax".
        weight_range: "mse" or "minmax".
        equalize: Cross-layer equalization before calibration; for networks with depthwise layers.
        correct_biases: After calibration, let every layer have the mean output of the float network.
        keep_float: Layers whose weights stay float, by name; `mobilekd sensitivity` lists them.
        max_top1_drop: Keep as few layers in float as it takes for calibrated top-1 to be at most this fraction below
            the float student's, on the calibration split. That of the profile, where it has one, stands in its place.
    """

    symmetry: Literal["symmetric", "asymmetric"] = "symmetric"
    calibration_images: int = Field(default=512, ge=1)
    activation_range: Literal["mse", "percentile", "moving_average", "minmax"] = "mse"
    weight_range: Literal["mse", "minmax"] = "mse"
    equalize: bool = False
    correct_biases: bool = False
    keep_float: tuple[str, ...] = ()
    max_top1_drop: float | None = Field(default=None, ge=0, le=1)

    def for_profile(self, profile: Profile) -> tuple[Stage, ...]:
        """Return this stage with the profile's max_top1_drop.

        Raises:
            ConfigError: The profile asks for an int8 backend that can't run this symmetry.
        """
        _check_symmetry(self.symmetry, profile)
        if profile.max_top1_drop is None:
            return (self,)
        return (self.model_copy(update={"max_top1_drop": profile.max_top1_drop}),)

    def post_training(self) -> "PostTraining":
        """Return the options as the recipe takes them."""
        from mobilekd.quantization.post_training import PostTraining

        names = PostTraining.__dataclass_fields__
        return PostTraining(**{name: getattr(self, name) for name in names})


def _check_symmetry(symmetry: str, profile: Profile) -> None:
    wanted = dict.fromkeys(one.backend for one in profile.deploy if one.precision == "int8")
    refusing = [name for name in wanted if symmetry not in BACKENDS.load(name).symmetries]
    if refusing:
        raise ConfigError(
            f"quantize.symmetry is {symmetry!r}, and profile {profile.name!r} deploys int8 to {', '.join(refusing)},"
            " which takes zero points of 0 only",
            hint='set quantize.symmetry = "symmetric", or take those deployments out of the profile',
            code="MKD-230",
        )


class Calibrator:
    """One float student, ready to be calibrated with one set of float layers or another."""

    def __init__(self, stage: CalibrationStage, student: Student, train: "Images") -> None:
        import torch

        self._recipe = stage.post_training()
        self._keep_float = frozenset(stage.keep_float)
        self._float = load_network(student)
        rows = calibration_rows(train, stage.calibration_images)
        self._batches: Sequence[Tensor] = [torch.from_numpy(train.normalized(one)) for one in rows]
        self._lowered = self._recipe.lowered(self._float, torch.cat(tuple(self._batches)))

    @property
    def example(self) -> "Tensor":
        """Return two images, [2, channels, height, width]."""
        return self._batches[0][:2]

    def calibrated(self, keep_float: frozenset[str]) -> "GraphModule":
        """Return a calibrated network with these layers in float."""
        return self._recipe.calibrated(self._lowered, self._batches, keep_float)

    def mixed(self, max_top1_drop: float, images: "Images", progress: Progress) -> "tuple[GraphModule, Mixed]":
        """Return a calibrated network that loses at most a fraction of top-1 on these images, and what of it is float.

        Raises:
            StageError: Not even all layers in float lose that little.
        """
        from mobilekd.quantization.mixed import Trial, choose_float_layers
        from mobilekd.training.loop import predict, top1

        def judged(network: "GraphModule") -> float:
            return top1(predict(network, images), images.labels)

        trial = Trial(self.calibrated, judged, lambda network: ranking(network, images, RANKED_IMAGES, progress).layers)
        top1_float = top1(predict(self._float, images), images.labels)
        return choose_float_layers(trial, top1_float, max_top1_drop, self._keep_float)


def ranking(prepared: "GraphModule", images: "Images", count: int, progress: Progress) -> "Ranking":
    """Return the layers of a calibrated network ranked on the first images of a split."""
    import torch

    from mobilekd.quantization.sensitivity import rank_layers

    rows = [slice(start, min(start + _BATCH, count)) for start in range(0, min(count, len(images)), _BATCH)]

    def batches(step: Callable[[], None]) -> "Iterator[tuple[Tensor, Tensor]]":
        for one in rows:
            batch = torch.from_numpy(images.normalized(one)).contiguous(memory_format=torch.channels_last)
            yield batch, torch.from_numpy(images.labels[one])
            step()

    with progress.bar("sensitivity: each layer alone in int8", len(rows)) as bar:
        return rank_layers(prepared, batches(bar.advance))


def calibration_rows(train: "Images", images: int) -> list[slice]:
    """Return the rows of the calibration images, batch by batch.

    Raises:
        ConfigError: The images are of one class, though the data has several: ranges would fit that class alone.
    """
    count = min(len(train), images)
    labels = train.labels[:count]
    if len(train.facts.classes) > 1 and len(set(labels.tolist())) == 1:
        raise ConfigError(
            f"all {count} calibration images are of class {train.facts.classes[int(labels[0])]!r}",
            hint="raise quantize.calibration_images, or shuffle the training images",
            code="MKD-245",
        )
    return [slice(start, min(start + _BATCH, count)) for start in range(0, count, _BATCH)]
