"""Images that come as arrays: an npz file, CIFAR-10, CIFAR-100."""

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mobilekd.errors import ConfigError
from mobilekd.training.sources import RESIZE_RULE, Source, square

_NPZ_KEYS = ("x_train", "y_train", "x_test", "y_test")
_NAMED_LABELS = 12
_LABELS = "classes are numbered 0, 1, 2 without gaps: classes, y_train = numpy.unique(labels, return_inverse=True)"


Cifar = Literal["cifar10", "cifar100"]
_TITLES: dict[Cifar, str] = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}
_FOLDERS: dict[Cifar, str] = {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}


def npz(path: Path, size: int, inside: str = "cifar10.npz") -> Source:
    """Read an npz file, or the one called `inside` in a folder.

    It holds x_train, y_train, x_test, y_test (uint8 [n, h, w, 3]; integer labels) and, if
    there, classes.

    Raises:
        ConfigError: The file is missing, is no npz, lacks an array, an array has another shape or type, or the labels
            are not those of two classes or more, without gaps.
    """
    file = path / inside if path.is_dir() else path
    if not file.is_file():
        raise ConfigError(
            f"{str(file)!r} is not a file",
            hint=f"give the .npz, or the folder of {inside}, with --data",
            code="MKD-240",
        )
    try:
        # numpy leaves a path of its own open when the archive is broken
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as cause:
        raise ConfigError(
            f"{file} is no npz file: {cause}", hint=f"it must hold {', '.join(_NPZ_KEYS)}", code="MKD-243"
        ) from cause
    _check_arrays(file, arrays)
    labels = arrays["y_train"].astype(np.int64)
    classes = arrays.get("classes", np.arange(int(labels.max(initial=-1)) + 1).astype(str))
    _check_labels(file, labels, arrays["y_test"], len(classes))
    train, test = (_resized(arrays[name], size) for name in ("x_train", "x_test"))
    side = arrays["x_train"].shape[1:3]
    return Source(
        classes=tuple(str(one) for one in classes),
        train_images=train,
        train_labels=labels,
        test_images=test,
        test_labels=arrays["y_test"].astype(np.int64),
        resize="none" if side == (size, size) else RESIZE_RULE.format(size=size),
        licence="unknown: set data.licence",
        origin=file.name,
    )


@dataclass(frozen=True, slots=True)
class ArrayShapes:
    """What an npz file holds, without its pixels: [height, width, channels] of the images, and images a class."""

    classes: tuple[str, ...]
    image_shape: tuple[int, ...]
    train_counts: tuple[int, ...]
    test_counts: tuple[int, ...]


def npz_shapes(file: Path) -> ArrayShapes:
    """Read labels and the headers of the images of an npz file.

    Raises:
        ConfigError: It is no npz, lacks an array, or has fewer than two classes.
    """
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            labels = {name: archive[name] for name in ("y_train", "y_test", "classes") if name in archive.files}
            names = list(archive.files)
        shape = _header_shape(file, "x_train.npy") if "x_train" in names else ()
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile) as cause:
        raise ConfigError(
            f"{file} is no npz file: {cause}", hint=f"it must hold {', '.join(_NPZ_KEYS)}", code="MKD-243"
        ) from cause
    if lost := [name for name in _NPZ_KEYS if name not in names]:
        raise ConfigError(
            f"{file} lacks {lost[0]!r}; it has {', '.join(names)}",
            hint=f"needed: {', '.join(_NPZ_KEYS)}",
            code="MKD-243",
        )
    for name in ("y_train", "y_test"):
        if (
            labels[name].ndim != 1
            or not np.issubdtype(labels[name].dtype, np.integer)
            or labels[name].min(initial=0) < 0
        ):
            raise ConfigError(
                f"{file}: {name} is {labels[name].dtype} {list(labels[name].shape)}",
                hint="integers [n] from 0",
                code="MKD-243",
            )
        labels[name] = labels[name].astype(np.int64)  # no unsigned type has the -1 of no labels at all
    count = int(max(labels["y_train"].max(initial=-1), labels["y_test"].max(initial=-1))) + 1
    classes = tuple(str(one) for one in labels.get("classes", np.arange(count)))
    counts = [np.bincount(labels[name], minlength=len(classes)).tolist() for name in ("y_train", "y_test")]
    if len(classes) < 2 or len(counts[0]) > len(classes) or not all(counts[0]):
        raise ConfigError(
            f"{file}: y_train has {sum(map(bool, counts[0]))} classes; {max(len(classes), 2)} are needed",
            hint=_LABELS,
            code="MKD-243",
        )
    return ArrayShapes(classes, shape[1:], tuple(counts[0]), tuple(counts[1]))


def _header_shape(file: Path, member: str) -> tuple[int, ...]:
    """Return the shape of one array of an npz file from its header.

    Raises:
        ValueError: It is no array of uint8 [n, h, w, 3].
    """
    with zipfile.ZipFile(file) as archive, archive.open(member) as stream:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(stream)
    if dtype != np.uint8 or len(shape) != 4 or shape[3] != 3:
        raise ValueError(f"{member.removesuffix('.npy')} is {dtype} {list(shape)}; it has to be uint8 [n, h, w, 3]")
    return tuple(int(one) for one in shape)


def _check_arrays(file: Path, arrays: dict[str, NDArray[np.generic]]) -> None:
    for name in _NPZ_KEYS:
        if name not in arrays:
            raise ConfigError(
                f"{file} lacks {name!r}; it has {', '.join(arrays)}",
                hint=f"needed: {', '.join(_NPZ_KEYS)}",
                code="MKD-243",
            )
    for split in ("train", "test"):
        images, labels = arrays[f"x_{split}"], arrays[f"y_{split}"]
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
            raise ConfigError(
                f"{file}: x_{split} is {images.dtype} {list(images.shape)}", hint="uint8 [n, h, w, 3]", code="MKD-243"
            )
        if not np.issubdtype(labels.dtype, np.integer) or labels.shape != (len(images),):
            raise ConfigError(
                f"{file}: y_{split} is {labels.dtype} {list(labels.shape)}", hint="integers [n]", code="MKD-243"
            )


def _check_labels(file: Path, train: NDArray[np.int64], test: NDArray[np.generic], classes: int) -> None:
    seen, tested = sorted(set(train.tolist())), sorted(set(test.tolist()))
    if seen != list(range(classes)):
        raise ConfigError(
            f"{file}: y_train has labels {_named(seen)} for {classes} classes", hint=_LABELS, code="MKD-243"
        )
    if classes < 2:
        raise ConfigError(
            f"{file}: y_train has one class; two are needed", hint="add images of what it is not", code="MKD-243"
        )
    if strange := [label for label in tested if label not in seen]:
        raise ConfigError(
            f"{file}: y_test has labels {_named(strange)}, which y_train has not", hint=_LABELS, code="MKD-243"
        )


def _named(labels: list[int]) -> str:
    shown = ", ".join(map(str, labels[:_NAMED_LABELS]))
    return f"{shown} and {len(labels) - _NAMED_LABELS} more" if len(labels) > _NAMED_LABELS else shown


def _resized(images: NDArray[np.generic], size: int) -> NDArray[np.uint8]:
    pixels = images.astype(np.uint8)
    if pixels.shape[1:3] == (size, size):
        return pixels
    return np.stack([square(Image.fromarray(one), size) for one in pixels])


def cifar(kind: Cifar, path: Path, size: int, *, download: bool) -> Source:
    """Read CIFAR-10, or CIFAR-100 with its 100 fine labels (Krizhevsky 2009).

    Args:
        kind: Which one.
        path: An npz file, the folder of cifar10.npz or cifar100.npz (see `npz`), or the folder that torchvision fills.
        size: Side of the square images, in pixels.
        download: Let torchvision download it into `path`.

    Raises:
        ConfigError: It is not there, could not be downloaded, or is damaged.
    """
    inside = f"{kind}.npz"
    if path.suffix == ".npz" or (path / inside).is_file():
        return npz(path, size, inside)
    if not (download or (path / _FOLDERS[kind]).is_dir()):
        raise ConfigError(
            f"{str(path)!r} has neither {inside} nor {_FOLDERS[kind]}/",
            hint="give one of them with --data, or set data.download = true",
            code="MKD-244",
        )
    from mobilekd.training.torchvision_ops import declare_torchvision_ops

    declare_torchvision_ops()
    from torchvision.datasets import CIFAR10, CIFAR100

    reader = CIFAR10 if kind == "cifar10" else CIFAR100
    try:
        train, test = (reader(str(path), train=is_train, download=download) for is_train in (True, False))
    except (OSError, RuntimeError) as cause:
        raise ConfigError(
            f"{_TITLES[kind]} could not be read or downloaded into {path}: {cause}",
            hint="set data.download = true, or remove what is damaged",
            code="MKD-244",
        ) from cause
    return Source(
        classes=tuple(train.classes),
        train_images=_resized(train.data, size),
        train_labels=np.asarray(train.targets, np.int64),
        test_images=_resized(test.data, size),
        test_labels=np.asarray(test.targets, np.int64),
        resize="none" if size == 32 else RESIZE_RULE.format(size=size),
        licence="no formal licence (Krizhevsky 2009)",
        origin=_TITLES[kind],
    )
