"""The parts of a manifest that restate what earlier stages know."""

from pathlib import PurePosixPath, PureWindowsPath

from mobilekd.artifacts import digest_file
from mobilekd.release.evidence import Evidence
from mobilekd.release.manifest import Accuracy, DatasetEntry, Preprocessing, ProfileCard

TEST_FILES = ("test_images.npy", "test_labels.npy")
_FORMULA = "(pixel / 255 - mean) / std, per channel"


def profile_card(evidence: Evidence) -> ProfileCard:
    """Return what the bundle was built for."""
    profile = evidence.profile
    return ProfileCard(
        name=profile.name,
        title=profile.title,
        target=profile.target,
        tolerance=profile.tolerance,
        budget=profile.budget,
    )


def dataset_entry(evidence: Evidence) -> DatasetEntry:
    """Return what the models were trained and tested on."""
    dataset = evidence.dataset
    files = {name: digest_file(evidence.dataset_path / name) for name in TEST_FILES}
    return DatasetEntry(
        name=dataset.name, source=_without_folders(dataset.source), splits=dataset.splits, test_files=files
    )


def preprocessing(evidence: Evidence) -> Preprocessing:
    """Return what an app does to an image before the model."""
    dataset = evidence.dataset
    return Preprocessing(
        channel_order="grey" if dataset.channels == 1 else "RGB",
        value_range=(0.0, 1.0),
        mean=dataset.mean,
        std=dataset.std,
        resize=dataset.resize,
        height=dataset.image_size[0],
        width=dataset.image_size[1],
        formula=_FORMULA,
    )


def accuracy(evidence: Evidence) -> tuple[Accuracy, ...]:
    """Return the accuracy of each trained network."""
    return tuple(
        Accuracy(
            role=trained.role,
            network=trained.network.network,
            parameters=trained.metrics.parameters,
            top1_test=trained.metrics.top1_test,
        )
        for trained in evidence.trained
    )


def _without_folders(source: str) -> str:
    """Return a source that says nothing of this machine: of an absolute path, only the last name."""
    if PurePosixPath(source).is_absolute() or source.startswith("~"):
        return PurePosixPath(source).name
    return PureWindowsPath(source).name if PureWindowsPath(source).drive else source
