from pathlib import Path

import pytest

from .workshop import Workshop


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path)


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One bundle that no test may change: the folder that holds bundle/ and bundle.zip."""
    return Workshop(tmp_path_factory.mktemp("built")).bundle()
