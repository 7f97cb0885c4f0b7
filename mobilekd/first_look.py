"""What a user's images are, before anything is decoded for training: counts, sizes, faults; and what the host has."""

import filecmp
import os
import shutil
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from PIL import Image, UnidentifiedImageError

from mobilekd.errors import ConfigError
from mobilekd.paths import free_bytes
from mobilekd.training.array_sources import npz_shapes
from mobilekd.training.image_folder import IMAGE_SUFFIXES, ImageFolder, find_images

OPENED, DECODED, COMPARED = 4000, 256, 500
"""Images whose header is read, whose pixels are, and pairs of one name whose bytes are: a first look takes seconds."""
TEST_SHARE = 0.2
_NPZ_INSIDE = ("cifar10.npz", "cifar100.npz")
_LAYOUTS = "lay images out as CLASS/*.jpg, or as train/CLASS/*.jpg and val/CLASS/*.jpg, one folder a class"

_Opened = tuple[int, str] | None
"""Shorter side and mode of an image; None where it can't be read."""


@dataclass(frozen=True, slots=True)
class FirstLook:
    """What is there.

    Attributes:
        path: The folder, or the npz file.
        layout: "train and val"; "train" or "classes" have no test split.
        train_counts, test_counts: Images a class; the test counts are empty where the layout has no test split.
        opened, decoded: Images whose header, and whose pixels, were read.
        unreadable: Those of them that are broken, below `path`.
        sides: Least, median and greatest shorter side, in pixels.
        modes: Pillow's mode -> images, as "RGB" and "L".
        in_both: Names, below the split, that a class has in train and in val.
        same_bytes: How many of the first 500 of those have the same content.
    """

    path: Path
    source: Literal["imagefolder", "npz"]
    layout: Literal["train and val", "train", "classes", "arrays"]
    classes: tuple[str, ...]
    train_counts: tuple[int, ...]
    test_counts: tuple[int, ...]
    opened: int
    decoded: int
    unreadable: tuple[str, ...]
    sides: tuple[int, int, int]
    modes: dict[str, int]
    in_both: tuple[str, ...] = ()
    same_bytes: int = 0

    @property
    def imbalance(self) -> float:
        """Return the images of the largest class over those of the smallest."""
        return max(self.train_counts) / min(self.train_counts)


@dataclass(frozen=True, slots=True)
class Machine:
    """What training would run on; `gpu` is empty where torch can use none."""

    cores: int
    memory_bytes: int
    free_disk_bytes: int
    gpu: str


def look_at(path: Path) -> FirstLook:
    """Return what a folder of images, an npz file, or the folder of a CIFAR npz holds.

    Raises:
        ConfigError: It is none of these, has fewer than two classes, can't be read, or no image of it can.
    """
    try:
        if file := _npz_file(path):
            return _look_at_arrays(file)
        if path.is_file():
            raise ConfigError(
                f"{str(path)!r} is a file; a folder of images, or an .npz file, is needed",
                hint=_LAYOUTS,
                code="MKD-241",
            )
        return _look_at_folder(path)
    except OSError as cause:
        raise ConfigError(
            f"{cause.filename or path} can't be read: {cause.strerror}", hint="look at its permissions", code="MKD-240"
        ) from cause


def look_at_machine(cache: Path) -> Machine:
    """Return what this host has; `cache` is where decoded images would go."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Machine(cores, memory, free_bytes(cache), _gpu())


def _gpu() -> str:
    """Return the name of the GPU that torch would use; torch, slow to import, is asked only where a driver is."""
    if not Path("/proc/driver/nvidia/version").exists() and shutil.which("nvidia-smi") is None:
        return ""
    try:
        import torch
    except ImportError:
        return ""
    return str(torch.cuda.get_device_name(0)) if torch.cuda.is_available() else ""


def _npz_file(path: Path) -> Path | None:
    if path.suffix == ".npz" and path.is_file():
        return path
    return next((path / name for name in _NPZ_INSIDE if (path / name).is_file()), None)


def _look_at_arrays(file: Path) -> FirstLook:
    arrays = npz_shapes(file)
    side = min(arrays.image_shape[:2])
    return FirstLook(
        path=file,
        source="npz",
        layout="arrays",
        classes=arrays.classes,
        train_counts=arrays.train_counts,
        test_counts=arrays.test_counts,
        opened=0,
        decoded=0,
        unreadable=(),
        sides=(side, side, side),
        modes={"RGB": sum(arrays.train_counts) + sum(arrays.test_counts)},
    )


def _look_at_folder(root: Path) -> FirstLook:
    layout = _layout(root)
    found = find_images(root, test_share=0.0 if layout == "train and val" else TEST_SHARE)
    has_val = layout == "train and val"
    train = found.train if has_val else tuple(sorted((*found.train, *found.val)))
    files = [file for file, _ in (*train, *found.val)] if has_val else [file for file, _ in train]
    to_open = _spread(files, OPENED)
    to_decode = set(_spread(to_open, DECODED))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        seen = list(pool.map(lambda file: _open(file, decode=file in to_decode), to_open))
    good = sorted(one for one in seen if one)
    if not good:
        raise ConfigError(
            f"{root}: none of {len(to_open)} image files can be read, {to_open[0]} the first",
            hint="mend the images",
            code="MKD-242",
        )
    in_both = _in_both(found) if has_val else ()
    return FirstLook(
        path=root,
        source="imagefolder",
        layout=layout,
        classes=found.classes,
        train_counts=_counts(found.classes, train),
        test_counts=_counts(found.classes, found.val) if has_val else (),
        opened=len(to_open),
        decoded=len(to_decode),
        unreadable=tuple(file.relative_to(root).as_posix() for file, one in zip(to_open, seen, strict=True) if not one),
        sides=(good[0][0], good[len(good) // 2][0], good[-1][0]),
        modes=dict(sorted(Counter(mode for _, mode in good).items())),
        in_both=in_both,
        same_bytes=sum(
            filecmp.cmp(root / "train" / one, root / "val" / one, shallow=False) for one in in_both[:COMPARED]
        ),
    )


def _layout(root: Path) -> Literal["train and val", "train", "classes"]:
    has_val = (root / "val").is_dir()
    top = root / "train" if has_val or (root / "train").is_dir() else root
    for folder in (top, root / "val") if has_val else (top,):
        if not folder.is_dir():
            raise ConfigError(f"{str(folder)!r} is not a folder", hint=_LAYOUTS, code="MKD-241")
        if not any(path.is_dir() for path in folder.iterdir()):
            loose = sum(path.suffix.lower() in IMAGE_SUFFIXES for path in folder.iterdir())
            beside = f"; {loose} image(s) lie in it directly" if loose else ""
            raise ConfigError(f"{folder} has no folder of a class{beside}", hint=_LAYOUTS, code="MKD-241")
    return "train and val" if has_val else "classes" if top == root else "train"


def _spread(files: Sequence[Path], at_most: int) -> list[Path]:
    """Return so many files, as far apart as they can be, so that every class of a usual size is among them.

    Example:
        >>> [one.name for one in _spread([Path(str(number)) for number in range(10)], 3)]
        ['0', '3', '6']
    """
    count = min(len(files), at_most)
    return [files[index * len(files) // count] for index in range(count)]


def _open(file: Path, *, decode: bool) -> _Opened:
    try:
        with Image.open(file) as image:
            if decode:
                image.load()
            return min(image.size), image.mode
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError):
        return None


def _counts(classes: Sequence[str], files: Sequence[tuple[Path, int]]) -> tuple[int, ...]:
    of = Counter(label for _, label in files)
    return tuple(of[label] for label in range(len(classes)))


def _in_both(found: ImageFolder) -> tuple[str, ...]:
    train, val = (
        {file.relative_to(found.root / split).as_posix() for file, _ in files}
        for split, files in (("train", found.train), ("val", found.val))
    )
    return tuple(sorted(train & val))
