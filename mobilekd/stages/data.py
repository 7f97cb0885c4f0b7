"""Decode a data set once: square uint8 images, and a fixed train / calibration / test split."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from mobilekd import artifacts
from mobilekd.errors import ConfigError, one_line
from mobilekd.paths import path_of
from mobilekd.stage import Context, Inputs, Stage

if TYPE_CHECKING:
    from mobilekd.training.sources import Source

_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_NAMED_CLASSES = 10


class Data(Stage):
    """Options of the data set.

    Attributes:
        source: "digits" comes with scikit-learn; the others read `path`.
        path: Folder or file of the data; --data sets it.
        image_size: Side of the square images, in pixels.
        calibration_images: Taken out of the training images for calibration and validation; at most a tenth of them.
        normalization: "imagenet" for teachers with ImageNet weights, "dataset" computes mean and deviation.
        skip_bad_images: Leave unreadable images out instead of stopping.
        download: Let torchvision download CIFAR-10 or CIFAR-100 into `path`.
        licence: Of the data, for the bundle; empty keeps what the source knows.
        test_share: Share of each class that is held out to test where an image folder has no val/; 0 asks for val/.
        seed: Of the images held out for calibration and test.
    """

    makes = artifacts.Dataset
    version: ClassVar[int] = 2
    tools: ClassVar[tuple[str, ...]] = ("numpy", "pillow")
    places: ClassVar[tuple[str, ...]] = ("path",)

    source: Literal["digits", "imagefolder", "npz", "cifar10", "cifar100"] = "digits"
    path: str = ""
    image_size: int = Field(default=32, ge=8, le=1024)
    calibration_images: int = Field(default=256, ge=8)
    normalization: Literal["dataset", "imagenet"] = "dataset"
    skip_bad_images: bool = False
    download: bool = False
    licence: str = ""
    test_share: float = Field(default=0.0, ge=0, lt=1)
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
            from mobilekd.training.image_folder import find_images

            find_images(path, test_share=self.test_share, seed=self.seed)
        elif not path.exists():
            raise ConfigError(
                f"data.path is {one_line(self.path)!r}: no such file or folder",
                hint="give the data with --data",
                code="MKD-240",
            )
        return {"path": scan(path)}

    def recorded_sources(self, sources: Mapping[str, str]) -> dict[str, str]:
        """Return no digest of a folder that the first build downloads into: it is not there before."""
        return {} if self.download else dict(sources)

    def class_count(self) -> int:
        """Return the number of classes, from names and labels alone: no image is read.

        Raises:
            ConfigError: The data are not there or damaged.
        """
        from mobilekd.training import array_sources, image_folder

        if self.source == "digits":
            return 10
        path = self._path()
        if self.source == "imagefolder":
            return len(image_folder.class_names(path, test_share=self.test_share))
        inside = "cifar10.npz" if self.source == "npz" else f"{self.source}.npz"
        file = path / inside if path.is_dir() else path
        if self.source == "npz" or file.is_file():
            return len(array_sources.npz_shapes(file).classes)
        return {"cifar10": 10, "cifar100": 100}[self.source]

    def run(self, inputs: Inputs, context: Context) -> None:
        """Write the three splits and dataset.json."""
        import numpy as np

        from mobilekd.training.data import DatasetFacts, channel_moments, write_facts, write_split

        del inputs
        source = self._read(context)
        order = np.random.default_rng(self.seed).permutation(len(source.train_labels))
        held_out = min(self.calibration_images, max(1, len(order) // 10))
        calibration, train = np.sort(order[:held_out]), np.sort(order[held_out:])
        everything = np.arange(len(source.test_labels))
        write_split(context.out, "train", source.train_images, source.train_labels, train)
        write_split(context.out, "calibration", source.train_images, source.train_labels, calibration)
        write_split(context.out, "test", source.test_images, source.test_labels, everything)
        counts = np.bincount(source.train_labels[train], minlength=len(source.classes)).tolist()
        mean, std = _IMAGENET
        if self.normalization == "dataset":
            computed = channel_moments(np.load(context.out / "train_images.npy", mmap_mode="r"))
            mean, std = computed[0].round(4).tolist(), np.maximum(computed[1], 0.01).round(4).tolist()
        facts = DatasetFacts(
            name=self.source,
            classes=source.classes,
            image_size=(self.image_size, self.image_size),
            mean=tuple(mean),
            std=tuple(std),
            resize=source.resize,
            splits={"train": len(train), "calibration": len(calibration), "test": len(everything)},
            licence=self.licence or source.licence,
            source=source.origin,
            bad_images=source.bad_images,
            class_counts=tuple(counts),
        )
        write_facts(facts, context.out)
        if uneven := uneven_classes(source.classes, counts):
            context.progress.say(f"data: {uneven}")

    def _read(self, context: Context) -> "Source":
        from mobilekd.training import array_sources, image_folder, sources

        if self.source == "digits":
            return sources.digits(self.image_size)
        if self.source == "npz":
            return array_sources.npz(self._path(), self.image_size)
        if self.source in ("cifar10", "cifar100"):
            return array_sources.cifar(self.source, self._path(), self.image_size, download=self.download)
        found = image_folder.find_images(self._path(), test_share=self.test_share, seed=self.seed)
        with context.progress.bar("data: reading images", len(found.train) + len(found.val)) as bar:
            source = image_folder.imagefolder(
                found,
                self.image_size,
                context.scratch,
                skip_bad_images=self.skip_bad_images,
                tick=lambda: bar.advance(1),
            )
        if source.bad_images:
            context.progress.say(f"data: skipped {len(source.bad_images)} unreadable image(s)")
        return source

    def _path(self) -> Path:
        if not self.path:
            raise ConfigError(
                f"data.path is empty, and source = {self.source!r} reads it",
                hint="give it with --data DIR",
                code="MKD-240",
            )
        return path_of(self.path)


def uneven_classes(classes: Sequence[str], counts: Sequence[int]) -> str:
    """Return a line that names the classes when the largest has more than 1.5 times the smallest; else nothing.

    Example:
        >>> uneven_classes(("cat", "dog"), (30, 10))
        'classes are uneven (cat 30, dog 10); sampling = "balanced" trains on each equally often'
    """
    if max(counts) <= 1.5 * min(counts):
        return ""
    named = [f"{name} {count}" for count, name in sorted(zip(counts, classes, strict=True), reverse=True)]
    if len(named) > _NAMED_CLASSES:
        named = [*named[: _NAMED_CLASSES // 2], "...", *named[-_NAMED_CLASSES // 2 :]]
    return f'classes are uneven ({", ".join(named)}); sampling = "balanced" trains on each equally often'
