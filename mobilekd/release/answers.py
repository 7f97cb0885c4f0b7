"""What every network and every model answered to every image of the test split: one class number an image.

A bundle carries them as answers/NAME.npy: uint16 little-endian, [images], in the order of the test split. So two
releases are compared image by image, and class by class, without the data and without running anything.
"""

import hashlib
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mobilekd.errors import ConfigError, VerificationError
from mobilekd.release.arrays import array_of
from mobilekd.release.files import BundleFiles
from mobilekd.release.manifest import FileEntry, Manifest

ANSWERS = "answers"
LABELS, TEACHER, STUDENT, QUANTIZED = "labels", "teacher", "student", "quantized"
NETWORKS = (LABELS, TEACHER, STUDENT, QUANTIZED)
MAX_CLASSES = 1 << 16

Classes = NDArray[np.uint16]


@dataclass(frozen=True, slots=True)
class Answers:
    """The answers that a bundle carries; every array is uint16 [images], in the order of the test split.

    Attributes:
        classes: Names of the classes: an answer is a place in them.
        labels: The right answers.
        networks: By role: teacher, student (float) and quantized (fake-quant); without those that were not kept.
        deployed: By deployment, under its default kernels; without models that did not run where they were built.
    """

    classes: tuple[str, ...]
    labels: Classes
    networks: Mapping[str, Classes]
    deployed: Mapping[str, Classes]

    @property
    def images(self) -> int:
        """Return how many images were answered."""
        return len(self.labels)


def per_class_top1(labels: Classes, answers: Classes, classes: int) -> NDArray[np.float64]:
    """Return the share of right answers of each class, [classes]; NaN for a class without images.

    Example:
        >>> per_class_top1(np.array([0, 0, 1], np.uint16), np.array([0, 1, 1], np.uint16), 3).tolist()
        [0.5, 1.0, nan]
    """
    images = np.bincount(labels, minlength=classes)
    right = np.bincount(labels[labels == answers], minlength=classes)
    shares: NDArray[np.float64] = np.divide(right, images, out=np.full(classes, np.nan), where=images > 0)
    return shares


def write_answers(folder: Path, name: str, classes: NDArray[np.integer]) -> None:
    """Write FOLDER/NAME.npy: class numbers below MAX_CLASSES, the same bytes for the same numbers."""
    folder.mkdir(exist_ok=True)
    np.save(folder / f"{name}.npy", classes.astype("<u2"), allow_pickle=False)


def copy_answers(source: Path | None, name: str, folder: Path) -> str | None:
    """Copy SOURCE/NAME.npy into a bundle and return its name there; None where there is none."""
    if source is None or not (source / f"{name}.npy").is_file():
        return None
    path = f"{ANSWERS}/{name}.npy"
    (folder / ANSWERS).mkdir(exist_ok=True)
    shutil.copyfile(source / f"{name}.npy", folder / path)
    return path


def carries_answers(manifest: Manifest) -> bool:
    """Return whether a bundle has answers; one that an older mobilekd built has none."""
    return LABELS in manifest.answers


def read_answers(files: BundleFiles, manifest: Manifest) -> Answers:
    """Return the answers that a bundle carries, each file checked against its digest.

    Raises:
        ConfigError: The bundle has none.
        VerificationError: A file is missing, was changed, or does not hold one class an image.
    """
    if not carries_answers(manifest):
        raise ConfigError(
            f"{files.path} carries no answers: mobilekd {manifest.mobilekd} built it",
            hint=f"mobilekd build --profile {manifest.profile.name} --pipeline {manifest.pipeline}",
        )
    entries = {entry.path: entry for entry in manifest.files}
    classes = len(manifest.labels)
    labels = _read(files, entries[manifest.answers[LABELS]], classes)
    networks = {
        role: _read(files, entries[path], classes, len(labels))
        for role, path in manifest.answers.items()
        if role != LABELS
    }
    deployed = {
        model.deployment: _read(files, entries[model.answers], classes, len(labels))
        for model in manifest.models
        if model.answers
    }
    return Answers(manifest.labels, labels, networks, deployed)


def load_answers(folder: Path, classes: tuple[str, ...], deployments: Iterable[str]) -> Answers:
    """Return the answers that `write_answers` left in a folder; a deployment without any is left out."""
    found = {name: _load(folder, name) for name in (*NETWORKS, *deployments) if (folder / f"{name}.npy").is_file()}
    networks = {role: found.pop(role) for role in NETWORKS if role in found}
    return Answers(classes, networks.pop(LABELS), networks, found)


def _load(folder: Path, name: str) -> Classes:
    answers: Classes = np.load(folder / f"{name}.npy", allow_pickle=False).astype(np.uint16)
    return answers


def _read(files: BundleFiles, entry: FileEntry, classes: int, images: int | None = None) -> Classes:
    """Return one file; its header is compared with its size before anything is made of it."""
    content = files.read(entry.path, limit_bytes=entry.bytes)
    where = f"{files.path}: {entry.path}"
    if hashlib.sha256(content).hexdigest() != entry.sha256:
        raise VerificationError(f"{where}: was changed after the bundle was built", hint="build it again")
    answers: Classes = array_of(content, "<u2", where).astype(np.uint16)
    if answers.ndim != 1 or not len(answers):
        raise VerificationError(f"{where}: holds uint16 {list(answers.shape)}, expected one class for each image")
    if images is not None and len(answers) != images:
        raise VerificationError(f"{where}: {len(answers)} answers for {images} images")
    if answers.max() >= classes:
        raise VerificationError(f"{where}: answers class {answers.max()}, there are {classes}")
    return answers
