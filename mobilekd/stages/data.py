"""Decode a data set once: square uint8 images, and a fixed train / calibration / test split."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from mobilekd import artifacts
from mobilekd.errors import ConfigError
from mobilekd.stage import Context, Inputs, Stage

if TYPE_CHECKING:
    from mobilekd.training.sources import Source

_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class Data(Stage):
    """Options of the data set.

    Attributes:
        source: "digits" comes with scikit-learn; the others read `path`.
        path: Folder or file of the data; --data sets it.
        image_size: Side of the square images, in pixels.
        calibration_images: Taken out of the training images for calibration and validation; at most a tenth of them.
        normalization: "imagenet" for teachers with ImageNet weights, "dataset" computes mean and deviation.
        skip_bad_images: Leave unreadable images out instead of stopping.
        download: Let torchvision download CIFAR-10 into `path`.
        licence: Of the data, for the bundle; empty keeps what the source knows.
    """

    makes = artifacts.Dataset
    tools: ClassVar[tuple[str, ...]] = ("numpy", "pillow")

    source: Literal["digits", "imagefolder", "npz", "cifar10"] = "digits"
    path: str = ""
    image_size: int = Field(default=32, ge=8, le=1024)
    calibration_images: int = Field(default=256, ge=8)
    normalization: Literal["dataset", "imagenet"] = "dataset"
    skip_bad_images: bool = False
    download: bool = False
    licence: str = ""
    seed: int = 0

    def tool_names(self) -> tuple[str, ...]:
        """Return the tools; the digits are those of the installed scikit-learn."""
        return (*self.tools, "scikit-learn") if self.source == "digits" else self.tools

    def sources(self, scan: Callable[[Path], str]) -> Mapping[str, str]:
        """Return the digest of the data."""
        if self.source == "digits":
            return {}
        path = self._path()
        if self.download and not path.exists():
            return {"path": "to be downloaded"}
        if self.source == "imagefolder":
            from mobilekd.training.sources import find_images

            find_images(path)
        elif not path.exists():
            raise ConfigError(f"data.path is {self.path!r}: no such file or folder", hint="give the data with --data")
        return {"path": scan(path)}

    def run(self, inputs: Inputs, context: Context) -> None:
        """Write the three splits and dataset.json."""
        import numpy as np

        from mobilekd.training.data import DatasetFacts, write_facts

        del inputs
        source = self._read(context)
        order = np.random.default_rng(self.seed).permutation(len(source.train_labels))
        held_out = min(self.calibration_images, max(1, len(order) // 10))
        calibration, train = np.sort(order[:held_out]), np.sort(order[held_out:])
        splits = {
            "train": (source.train_images[train], source.train_labels[train]),
            "calibration": (source.train_images[calibration], source.train_labels[calibration]),
            "test": (source.test_images, source.test_labels),
        }
        for name, (images, labels) in splits.items():
            np.save(context.out / f"{name}_images.npy", images)
            np.save(context.out / f"{name}_labels.npy", labels)
        pixels = splits["train"][0].reshape(-1, 3) / 255.0
        computed = (pixels.mean(axis=0).round(4).tolist(), np.maximum(pixels.std(axis=0), 0.01).round(4).tolist())
        mean, std = _IMAGENET if self.normalization == "imagenet" else computed
        facts = DatasetFacts(
            name=self.source,
            classes=source.classes,
            image_size=(self.image_size, self.image_size),
            mean=tuple(mean),
            std=tuple(std),
            resize=source.resize,
            splits={name: len(labels) for name, (_, labels) in splits.items()},
            licence=self.licence or source.licence,
            source=source.origin,
            bad_images=source.bad_images,
        )
        write_facts(facts, context.out)

    def _read(self, context: Context) -> "Source":
        from mobilekd.training import array_sources, sources

        if self.source == "digits":
            return sources.digits(self.image_size)
        if self.source == "npz":
            return array_sources.npz(self._path(), self.image_size)
        if self.source == "cifar10":
            return array_sources.cifar10(self._path(), self.image_size, download=self.download)
        found = sources.find_images(self._path())
        with context.progress.bar("data: reading images", len(found.train) + len(found.val)) as bar:
            source = sources.imagefolder(
                found, self.image_size, skip_bad_images=self.skip_bad_images, tick=lambda: bar.advance(1)
            )
        if source.bad_images:
            context.progress.say(f"data: skipped {len(source.bad_images)} unreadable image(s)")
        return source

    def _path(self) -> Path:
        if not self.path:
            raise ConfigError(
                f"data.path is empty, and source = {self.source!r} reads it", hint="give it with --data DIR"
            )
        return Path(self.path).expanduser()
