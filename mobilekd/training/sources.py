"""Where images come from: the embedded digits, and an image folder. Arrays are in array_sources.py."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from mobilekd.errors import ConfigError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
_NAMED_BAD_IMAGES = 5

Tick = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Source:
    """What a source gives before it is split for calibration.

    Attributes:
        classes: Labels in logit order.
        train_images, test_images: uint8 [n, size, size, 3].
        train_labels, test_labels: int64 [n].
        resize: The resize rule in words.
        bad_images: Files skipped.
    """

    classes: tuple[str, ...]
    train_images: NDArray[np.uint8]
    train_labels: NDArray[np.int64]
    test_images: NDArray[np.uint8]
    test_labels: NDArray[np.int64]
    resize: str
    licence: str
    origin: str
    bad_images: tuple[str, ...] = field(default=())


def digits(size: int, *, test_images: int = 360, split_seed: int = 0) -> Source:
    """Return scikit-learn's handwritten digits (1,797 images of 8x8), enlarged, with a fixed split."""
    from sklearn.datasets import load_digits

    raw = load_digits()
    pixels = np.rint(raw.images * (255 / 16)).astype(np.uint8)
    enlarged = np.stack([square(Image.fromarray(one).convert("RGB"), size) for one in pixels])
    order = np.random.default_rng(split_seed).permutation(len(enlarged))
    test, train = order[:test_images], order[test_images:]
    labels = raw.target.astype(np.int64)
    return Source(
        classes=tuple(str(digit) for digit in range(10)),
        train_images=enlarged[train],
        train_labels=labels[train],
        test_images=enlarged[test],
        test_labels=labels[test],
        resize=RESIZE_RULE.format(size=size),
        licence="CC-BY-4.0",
        origin="Optical Recognition of Handwritten Digits, UCI, as shipped by scikit-learn (load_digits)",
    )


RESIZE_RULE = "shorter side to {size} px, bilinear with antialias, then the central {size} x {size} square"


def square(image: Image.Image, size: int) -> NDArray[np.uint8]:
    """Return an image as uint8 [size, size, 3]: shorter side resized, centre cropped."""
    scale = size / min(image.size)
    wide = (max(size, round(image.width * scale)), max(size, round(image.height * scale)))
    resized = image.convert("RGB").resize(wide, Image.Resampling.BILINEAR)
    left, top = (wide[0] - size) // 2, (wide[1] - size) // 2
    return np.asarray(resized.crop((left, top, left + size, top + size)))


@dataclass(frozen=True, slots=True)
class ImageFolder:
    """The files of train/<class>/* and val/<class>/*, found and checked, not yet read."""

    root: Path
    classes: tuple[str, ...]
    train: tuple[tuple[Path, int], ...]
    val: tuple[tuple[Path, int], ...]


def find_images(root: Path) -> ImageFolder:
    """Return the files of an image folder.

    Raises:
        ConfigError: A folder is missing, a class is empty, or train and val have other classes.
    """
    train, val = _class_folders(root / "train"), _class_folders(root / "val")
    if train != val:
        only = [f"{name} (only in train)" for name in train if name not in val]
        only += [f"{name} (only in val)" for name in val if name not in train]
        raise ConfigError(f"{root}: train and val have other classes: {', '.join(only)}", hint="each class needs both")
    return ImageFolder(root, train, _class_files(root / "train", train), _class_files(root / "val", val))


def _class_folders(folder: Path) -> tuple[str, ...]:
    if not folder.is_dir():
        raise ConfigError(
            f"{str(folder)!r} is not a folder",
            hint="an image folder is DIR/train/<class>/*.jpg and DIR/val/<class>/*.jpg; give DIR with --data",
        )
    names = tuple(sorted(one.name for one in folder.iterdir() if one.is_dir()))
    if len(names) < 2:
        raise ConfigError(f"{folder} has {len(names)} class folder(s); two are needed", hint="one folder per class")
    return names


def _class_files(folder: Path, classes: Iterable[str]) -> tuple[tuple[Path, int], ...]:
    found: list[tuple[Path, int]] = []
    for label, name in enumerate(classes):
        files = sorted(one for one in (folder / name).iterdir() if one.suffix.lower() in IMAGE_SUFFIXES)
        if not files:
            raise ConfigError(
                f"class {name!r} is empty: no image in {folder / name}",
                hint=f"add images ({', '.join(IMAGE_SUFFIXES)}) or remove the folder from train and val",
            )
        found += [(file, label) for file in files]
    return tuple(found)


def imagefolder(found: ImageFolder, size: int, *, skip_bad_images: bool, tick: Tick) -> Source:
    """Read an image folder.

    Args:
        found: What `find_images` gave.
        size: Side of the square images, in pixels.
        skip_bad_images: Leave unreadable files out; else they are an error.
        tick: Called after each image.

    Raises:
        ConfigError: Images are unreadable, the first ones named.
    """
    bad: list[str] = []
    train, train_labels = _read_all(found.train, size, bad, tick)
    test, test_labels = _read_all(found.val, size, bad, tick)
    if bad and not skip_bad_images:
        named = ", ".join(bad[:_NAMED_BAD_IMAGES])
        more = f" and {len(bad) - _NAMED_BAD_IMAGES} more" if len(bad) > _NAMED_BAD_IMAGES else ""
        raise ConfigError(
            f"{len(bad)} unreadable image(s): {named}{more}", hint="mend them, or go on without: --skip-bad-images"
        )
    for split, labels in (("train", train_labels), ("val", test_labels)):
        for label in set(range(len(found.classes))) - set(labels.tolist()):
            raise ConfigError(f"class {found.classes[label]!r} has no readable image in {found.root / split}")
    return Source(
        classes=found.classes,
        train_images=train,
        train_labels=train_labels,
        test_images=test,
        test_labels=test_labels,
        resize=RESIZE_RULE.format(size=size),
        licence="unknown: set data.licence",
        origin="the user's image folder",
        bad_images=tuple(Path(one).relative_to(found.root).as_posix() for one in bad),
    )


def _read_all(
    files: Iterable[tuple[Path, int]], size: int, bad: list[str], tick: Tick
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    images: list[NDArray[np.uint8]] = []
    labels: list[int] = []
    for path, label in files:
        try:
            with Image.open(path) as image:
                images.append(square(image, size))
            labels.append(label)
        except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError):
            bad.append(str(path))  # Pillow raises SyntaxError for a broken PNG chunk
        tick()
    stacked = np.stack(images) if images else np.zeros((0, size, size, 3), np.uint8)
    return stacked, np.asarray(labels, np.int64)
