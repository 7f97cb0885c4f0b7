"""Which images and which schemes calibrate, and which are refused."""

import numpy as np
import pytest

from mobilekd.errors import ConfigError
from mobilekd.profile import Deployment, Profile, Target
from mobilekd.stages._calibration import calibration_rows
from mobilekd.stages.quantize import Quantize
from mobilekd.training.data import DatasetFacts, Images

FACTS = DatasetFacts("toy", ("cat", "dog"), (4, 4), (0.5,) * 3, (0.25,) * 3, "none", {}, "", "")


def labelled(*labels: int) -> Images:
    return Images(np.zeros((len(labels), 4, 4, 3), np.uint8), np.array(labels, np.int64), FACTS)


def test_rows_cover_the_images_asked_for_in_batches() -> None:
    rows = calibration_rows(labelled(*([0, 1] * 100)), 150)
    assert [(one.start, one.stop) for one in rows] == [(0, 64), (64, 128), (128, 150)]


def test_fewer_images_than_asked_for_are_all_taken() -> None:
    assert calibration_rows(labelled(0, 1, 1), 512) == [slice(0, 3)]


def test_images_of_one_class_are_refused_by_its_name() -> None:
    with pytest.raises(ConfigError, match="all 2 calibration images are of class 'dog'"):
        calibration_rows(labelled(1, 1, 0, 0), 2)


def test_a_symmetry_that_a_deployed_backend_cannot_run_is_refused_before_anything_runs() -> None:
    profile = Profile(
        name="phone",
        title="",
        target=Target(os="android", abi="arm64-v8a"),
        deploy=(Deployment(backend="tflite"), Deployment(backend="mnn")),
    )
    with pytest.raises(ConfigError, match="'asymmetric', and profile 'phone' deploys int8 to mnn"):
        Quantize(symmetry="asymmetric").for_profile(profile)
