"""One state folder for all tests of a session: the runner is built once, a wheel is downloaded once."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from mobilekd.device import runner, runtimes
from mobilekd.errors import MissingToolError
from tests.device import models


@pytest.fixture(scope="session")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("state")


@pytest.fixture(scope="session")
def small_models(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, models.Model]:
    folder = tmp_path_factory.mktemp("models")
    return {backend: models.make(backend, folder / backend) for backend in runtimes.backends()}


@pytest.fixture(scope="session")
def host_kit(state: Path) -> Mapping[str, Path]:
    return _kit("x86_64", state)


@pytest.fixture(scope="session")
def arm_kit(state: Path) -> Mapping[str, Path]:
    return _kit("aarch64", state)


def _kit(machine: str, state: Path) -> Mapping[str, Path]:
    try:
        return runner.kit(machine, runtimes.backends(), state, models.Silent())
    except MissingToolError as cause:
        pytest.skip(f"{cause.message} ({cause.hint})")
