"""The data set as stages see it: uint8 images in memory maps, and what is known of them."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mobilekd.artifacts import write_json
from mobilekd.preprocessing import normalize

Split = Literal["train", "calibration", "test"]
SPLITS: tuple[Split, ...] = ("train", "calibration", "test")
_ROWS_AT_ONCE = 1024


@dataclass(frozen=True, slots=True)
class DatasetFacts:
    """dataset.json.

    Attributes:
        name: Kind of source, as "digits".
        classes: Labels, in the order of the logits.
        image_size: Height and width in pixels; images are square.
        mean, std: Per channel, of pixels in [0, 1]; the network's input is (pixel / 255 - mean) / std.
        resize: How an image becomes square, in words that an app developer can follow.
        splits: Images in each split.
        licence, source: Where the data come from.
        bad_images: Files that could not be read and were skipped.
        class_counts: Training images of each class, in the order of `classes`.
    """

    name: str
    classes: tuple[str, ...]
    image_size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: str
    splits: dict[str, int]
    licence: str
    source: str
    channels: int = 3
    bad_images: tuple[str, ...] = ()
    class_counts: tuple[int, ...] = ()


def write_facts(facts: DatasetFacts, folder: Path) -> None:
    """Write dataset.json."""
    write_json(folder / "dataset.json", asdict(facts))


def read_facts(folder: Path) -> DatasetFacts:
    """Read dataset.json of a Dataset artifact."""
    document: dict[str, Any] = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    tuples = {key: tuple(value) for key, value in document.items() if isinstance(value, list)}
    return DatasetFacts(**{**document, **tuples})


@dataclass(frozen=True, slots=True)
class Images:
    """One split: images uint8 [n, height, width, channels] and labels int64 [n], with the set's facts."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    facts: DatasetFacts

    def __len__(self) -> int:
        return len(self.labels)

    def normalized(self, rows: NDArray[np.int64] | slice) -> NDArray[np.float32]:
        """Return some images as the network takes them: float32 [rows, channels, height, width]."""
        return normalize(self.images[rows], self.facts.mean, self.facts.std)

    def batches(self, size: int) -> Iterator[NDArray[np.float32]]:
        """Yield all images in order, normalised, in batches."""
        for start in range(0, len(self), size):
            yield self.normalized(slice(start, start + size))


def open_split(folder: Path, split: Split) -> Images:
    """Open one split of a Dataset artifact; the images stay on disk until they are read."""
    images = np.load(
        folder / f"{split}_images.npy", mmap_mode="c"
    )  # "c": torch warns of arrays it could write to but must not
    return Images(images, np.load(folder / f"{split}_labels.npy"), read_facts(folder))


def write_split(
    folder: Path, split: Split, images: NDArray[np.uint8], labels: NDArray[np.int64], rows: NDArray[np.int64]
) -> None:
    """Write some rows as a split of a Dataset artifact; a part at a time, as `images` may be larger than memory."""
    target: NDArray[np.uint8] = np.lib.format.open_memmap(
        folder / f"{split}_images.npy", "w+", np.uint8, (len(rows), *images.shape[1:])
    )
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        target[part] = images[rows[part]]
    np.save(folder / f"{split}_labels.npy", labels[rows])


def channel_moments(images: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean and standard deviation of each channel, [channels] each, of pixels in [0, 1].

    They come from how often each of the 256 values occurs: exact, and a part of the images at a time.
    """
    channels = images.shape[3]
    counts = np.zeros((channels, 256), np.int64)
    for start in range(0, len(images), _ROWS_AT_ONCE):
        pixels = images[start : start + _ROWS_AT_ONCE].reshape(-1, channels)
        counts += np.stack([np.bincount(pixels[:, channel], minlength=256) for channel in range(channels)])
    values, total = np.arange(256) / 255.0, counts.sum(axis=1)
    mean = counts @ values / total
    variance = (counts * (values - mean[:, None]) ** 2).sum(axis=1) / total
    return mean, np.sqrt(variance)
