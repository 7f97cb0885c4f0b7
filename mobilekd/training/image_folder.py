"""Image folders: train/<class>/* and val/<class>/*, or <class>/* of which a share is held out for the test."""

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from mobilekd.errors import ConfigError
from mobilekd.training.sources import RESIZE_RULE, Source, square

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
_NAMED_BAD_IMAGES = 5
_READ_AT_ONCE = 512  # jobs that wait in the pool: a million of them would take a gigabyte

Tick = Callable[[], None]
Files = tuple[tuple[Path, int], ...]


@dataclass(frozen=True, slots=True)
class ImageFolder:
    """The image files with their labels, found and checked, not yet read."""

    root: Path
    classes: tuple[str, ...]
    train: Files
    val: Files


def find_images(root: Path, *, test_share: float = 0.0, seed: int = 0) -> ImageFolder:
    """Return the files of an image folder.

    Args:
        root: Has train/ and val/, or with a `test_share` train/ alone or the class folders themselves.
        test_share: Share of each class that is held out where there is no val/, at least one image; 0 asks for val/.
        seed: Of that choice.

    Raises:
        ConfigError: It is a file, a folder is missing, a class is empty, train and val have other classes, there is a
            val/ beside a `test_share`, or a class has one image and has to be split.
    """
    if root.is_file():
        raise ConfigError(
            f"{str(root)!r} is a file, and data.source = 'imagefolder' reads a folder",
            hint="for arrays in an .npz file: --set data.source=npz" if root.suffix == ".npz" else "give the folder",
            code="MKD-241",
        )
    if test_share:
        return _split_folder(root, test_share, seed)
    train, val = _class_folders(root / "train"), _class_folders(root / "val")
    if train != val:
        only = [f"{name} (only in train)" for name in train if name not in val]
        only += [f"{name} (only in val)" for name in val if name not in train]
        raise ConfigError(
            f"{root}: train and val have other classes: {', '.join(only)}", hint="each class needs both", code="MKD-241"
        )
    return ImageFolder(root, train, _class_files(root / "train", train), _class_files(root / "val", val))


def class_names(root: Path, *, test_share: float = 0.0) -> tuple[str, ...]:
    """Return the classes of an image folder from the names of its folders alone.

    Raises:
        ConfigError: There are fewer than two.
    """
    is_split = not test_share or (root / "train").is_dir()
    return _class_folders(root / "train" if is_split else root)


def _split_folder(root: Path, test_share: float, seed: int) -> ImageFolder:
    if (root / "val").is_dir():
        raise ConfigError(
            f"{root} has val/, and data.test_share is {test_share}",
            hint="set data.test_share = 0 to test on val/",
            code="MKD-241",
        )
    top = root / "train" if (root / "train").is_dir() else root
    classes = _class_folders(top)
    files = _class_files(top, classes)
    labels = np.array([label for _, label in files])
    is_test = np.zeros(len(files), bool)
    for label, name in enumerate(classes):
        rows = np.flatnonzero(labels == label)
        if len(rows) < 2:
            raise ConfigError(
                f"class {name!r} has one image in {top / name}: none is left to test", hint="add images", code="MKD-241"
            )
        held_out = min(len(rows) - 1, max(1, round(test_share * len(rows))))
        is_test[np.random.default_rng((seed, label)).permutation(rows)[:held_out]] = True
    train, test = (tuple(files[row] for row in np.flatnonzero(chosen)) for chosen in (~is_test, is_test))
    return ImageFolder(root, classes, train, test)


def _class_folders(folder: Path) -> tuple[str, ...]:
    if not folder.is_dir():
        raise ConfigError(
            f"{str(folder)!r} is not a folder",
            hint="an image folder is DIR/train/<class>/*.jpg and DIR/val/<class>/*.jpg; give DIR with --data. "
            "For DIR/<class>/*.jpg set data.test_share, as 0.2, to hold out a part of each class",
            code="MKD-241",
        )
    names = tuple(sorted(one.name for one in folder.iterdir() if one.is_dir()))
    if len(names) < 2:
        raise ConfigError(
            f"{folder} has {len(names)} class folder(s); two are needed", hint="one folder per class", code="MKD-241"
        )
    return names


def _class_files(folder: Path, classes: Iterable[str]) -> Files:
    found: list[tuple[Path, int]] = []
    for label, name in enumerate(classes):
        files = sorted(one for one in (folder / name).iterdir() if one.suffix.lower() in IMAGE_SUFFIXES)
        if not files:
            raise ConfigError(
                f"class {name!r} is empty: no image in {folder / name}",
                hint=f"add images ({', '.join(IMAGE_SUFFIXES)}) or remove the folder from train and val",
                code="MKD-241",
            )
        found += [(file, label) for file in files]
    return tuple(found)


def imagefolder(found: ImageFolder, size: int, scratch: Path, *, skip_bad_images: bool, tick: Tick) -> Source:
    """Read an image folder, with as many threads as there are CPUs.

    Args:
        found: What `find_images` gave.
        size: Side of the square images, in pixels.
        scratch: Folder for decoded_train.npy and decoded_val.npy, which the images of the source are mapped from, so
            that a set may be larger than memory.
        skip_bad_images: Leave unreadable files out; else they are an error.
        tick: Called after each image.

    Raises:
        ConfigError: Images are unreadable, the first ones named.
    """
    bad: list[str] = []
    train, train_labels = _read_all(found.train, size, scratch / "decoded_train.npy", bad, tick)
    test, test_labels = _read_all(found.val, size, scratch / "decoded_val.npy", bad, tick)
    if bad and not skip_bad_images:
        named = ", ".join(bad[:_NAMED_BAD_IMAGES])
        more = f" and {len(bad) - _NAMED_BAD_IMAGES} more" if len(bad) > _NAMED_BAD_IMAGES else ""
        raise ConfigError(
            f"{len(bad)} unreadable image(s): {named}{more}",
            hint="mend them, or go on without: --skip-bad-images",
            code="MKD-242",
        )
    for use, labels in (("train on", train_labels), ("test with", test_labels)):
        for label in set(range(len(found.classes))) - set(labels.tolist()):
            raise ConfigError(
                f"class {found.classes[label]!r} has no readable image to {use}", hint="mend its images", code="MKD-242"
            )
    return Source(
        classes=found.classes,
        train_images=train,
        train_labels=train_labels,
        test_images=test,
        test_labels=test_labels,
        resize=f"turned as its EXIF orientation says; {RESIZE_RULE.format(size=size)}",
        licence="unknown: set data.licence",
        origin="the user's image folder",
        bad_images=tuple(Path(one).relative_to(found.root).as_posix() for one in bad),
    )


def _read_all(
    files: Files, size: int, target: Path, bad: list[str], tick: Tick
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    images: NDArray[np.uint8] = np.lib.format.open_memmap(target, "w+", np.uint8, (len(files), size, size, 3))

    def read(row: int) -> bool:  # Pillow gives the interpreter free while it decodes and resizes
        return _read_into(images[row], files[row][0])

    is_good: list[bool] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(files), _READ_AT_ONCE):
            for one in pool.map(read, range(start, min(start + _READ_AT_ONCE, len(files)))):
                is_good.append(one)
                tick()
    bad += [str(path) for (path, _), good in zip(files, is_good, strict=True) if not good]
    labels = np.array([label for _, label in files], np.int64)[is_good]
    return _moved_together(images, np.flatnonzero(is_good)), labels


def _read_into(pixels: NDArray[np.uint8], path: Path) -> bool:
    """Fill uint8 [size, size, 3] and return True; False when the file is no readable image."""
    try:
        with Image.open(path) as image:
            ImageOps.exif_transpose(image, in_place=True)
            pixels[:] = square(image, len(pixels))
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError):
        return False  # Pillow raises SyntaxError for a broken PNG chunk
    return True


def _moved_together(images: NDArray[np.uint8], rows: Sequence[int] | NDArray[np.intp]) -> NDArray[np.uint8]:
    """Return the given rows, ascending, without a copy in memory: they move to the front."""
    if len(rows) < len(images):
        for new, old in enumerate(rows):
            images[new] = images[old]
    return images[: len(rows)]
