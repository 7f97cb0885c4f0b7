"""Options of a first pipeline for the images at hand, each with its reason: rules of thumb, to be changed by hand."""

import math
from dataclasses import dataclass
from typing import Generic, TypeVar

from mobilekd.first_look import TEST_SHARE, FirstLook, Machine
from mobilekd.units import readable_bytes

_V = TypeVar("_V", bool, int, float, str)

UNEVEN = 1.5
"""Largest class over smallest from which classes count as uneven, as the `data` stage has it."""
_SIDES = (32, 64, 96, 128, 160, 192, 224)
_MOST_ON_CPU = 128
_STEPS = {"teacher": 3000, "distill": 4500}
_WORDS_WITH_A_SIDE = ("left", "right", "text", "digit", "letter", "sign")
_BASE_BYTES = 800 << 20
"""A process that has imported torch and timm, and a teacher with its gradient and AdamW's two averages."""


@dataclass(frozen=True, slots=True)
class Choice(Generic[_V]):
    """A value of an option, and why it has it."""

    value: _V
    why: str


@dataclass(frozen=True, slots=True)
class Networks:
    """A teacher and a student, for so many training images.

    Attributes:
        below: The pair is taken for fewer training images than this.
        pixel_bytes: Memory of a step of the teacher for each pixel of a batch; measured at 32 x 128 x 128.
    """

    below: float
    teacher: str
    student: str
    pixel_bytes: int


NETWORKS = (
    Networks(2_000, "timm:resnet18", "timm:mobilenetv4_conv_small_050", 540),
    Networks(20_000, "timm:resnet34", "timm:mobilenetv4_conv_small", 780),
    Networks(math.inf, "timm:resnet50", "timm:mobilenetv4_conv_medium", 2060),
)


@dataclass(frozen=True, slots=True)
class FirstOptions:
    """What the pipeline file says."""

    test_share: Choice[float]
    image_size: Choice[int]
    calibration_images: Choice[int]
    skip_bad_images: Choice[bool]
    networks: Networks
    networks_why: str
    batch_size: Choice[int]
    teacher_epochs: Choice[int]
    distill_epochs: Choice[int]
    sampling: Choice[str]
    flip: Choice[bool]
    shift_pixels: int
    disk_bytes: int
    memory_bytes: int


def choose(look: FirstLook, machine: Machine) -> FirstOptions:
    """Return the options for these images on this machine."""
    everything = sum(look.train_counts)
    test_share = _test_share(look)
    train = round(everything * (1 - test_share.value))
    calibration = _calibration(train)
    size = _image_size(look, machine)
    networks = next(one for one in NETWORKS if train < one.below)
    batch = _batch_size(train, size.value, networks, machine)
    steps = max(1, (train - calibration.value) // batch.value)
    return FirstOptions(
        test_share=test_share,
        image_size=size,
        calibration_images=calibration,
        skip_bad_images=_skip(look),
        networks=networks,
        networks_why=f"{train:,} training images",
        batch_size=batch,
        teacher_epochs=_epochs("teacher", steps),
        distill_epochs=_epochs("distill", steps),
        sampling=_sampling(look),
        flip=_flip(look.classes),
        shift_pixels=max(1, size.value // 16),
        disk_bytes=(everything + sum(look.test_counts)) * size.value**2 * 3,
        memory_bytes=_step_bytes(batch.value, size.value, networks),
    )


def _test_share(look: FirstLook) -> Choice[float]:
    if look.layout == "arrays":
        return Choice(0.0, "x_test is the test split")
    if look.test_counts:
        return Choice(0.0, "val/ is the test split")
    return Choice(TEST_SHARE, "of each class, held out to test on: there is no val/")


def _image_size(look: FirstLook, machine: Machine) -> Choice[int]:
    median = look.sides[1]
    fits = max((side for side in _SIDES if side <= median), default=_SIDES[0])
    if fits > _MOST_ON_CPU and not machine.gpu:
        return Choice(
            _MOST_ON_CPU,
            f"half of the images have a shorter side of {median} px or more; no GPU: 224 takes 3 times as long",
        )
    if median < _SIDES[0]:
        return Choice(_SIDES[0], f"the median shorter side is {median} px; the networks halve it five times")
    return Choice(fits, f"half of the images have a shorter side of {median} px or more; no larger than that")


def _calibration(train: int) -> Choice[int]:
    count = max(8, min(512, train // 10))
    return Choice(
        count, "taken out of the training images: calibrates int8, and is the validation set; a tenth, at most 512"
    )


def _skip(look: FirstLook) -> Choice[bool]:
    if not look.unreadable:
        return Choice(
            value=False,
            why=f"{look.decoded:,} of {look.opened:,} images were decoded: all can be read" if look.opened else "",
        )
    named = ", ".join(look.unreadable[:3]) + (", ..." if len(look.unreadable) > 3 else "")
    return Choice(value=True, why=f"{len(look.unreadable)} of {look.opened:,} images can't be read: {named}")


def _batch_size(train: int, size: int, networks: Networks, machine: Machine) -> Choice[int]:
    largest = 64
    while largest > 8 and _step_bytes(largest, size, networks) > machine.memory_bytes / 2:
        largest //= 2
    few = largest
    while few > 8 and train / few < 16:
        few //= 2
    if few < largest:
        return Choice(few, f"so that {train:,} images give 16 steps an epoch, or as near as it goes")
    return Choice(
        largest, "" if largest == 64 else f"half of the memory ({readable_bytes(machine.memory_bytes)}) holds no more"
    )


def _step_bytes(batch: int, size: int, networks: Networks) -> int:
    return _BASE_BYTES + batch * size**2 * networks.pixel_bytes


def _epochs(stage: str, steps: int) -> Choice[int]:
    epochs = min(60, max(10, math.ceil(_STEPS[stage] / steps)))
    return Choice(
        epochs, f"{epochs * steps:,} steps, {steps} an epoch; wanted are {_STEPS[stage]:,} in 10 to 60 epochs"
    )


def _sampling(look: FirstLook) -> Choice[str]:
    least, most = (chosen(range(len(look.classes)), key=look.train_counts.__getitem__) for chosen in (min, max))
    told = f"{look.classes[most]} has {look.imbalance:.1f} times the images of {look.classes[least]}"
    if look.imbalance > UNEVEN:
        return Choice("balanced", f"{told}: each class is drawn equally often")
    return Choice("shuffled", f'{told}; above {UNEVEN} "balanced" would help')


def _flip(classes: tuple[str, ...]) -> Choice[bool]:
    sided = [name for name in classes if len(name) == 1 or any(word in name.lower() for word in _WORDS_WITH_A_SIDE)]
    if sided:
        return Choice(value=False, why=f"a mirrored {sided[0]!r} may be another class")
    return Choice(value=True, why="mirrors half of the images; false for text, digits, traffic signs")
