"""What a source of images gives, and the embedded digits; see also array_sources.py and image_folder.py."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image


@dataclass(frozen=True, slots=True)
class Source:
    """What a source gives before it is split for calibration.

    Attributes:
        classes: Labels in logit order.
        train_images, test_images: uint8 [n, size, size, 3]; may be memory maps.
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
