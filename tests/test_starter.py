import tomllib
from pathlib import Path

import pytest

from mobilekd import starter
from mobilekd.errors import ConfigError


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "My flowers!"
    for name in ("train/rose", "val/rose"):
        (folder / name).mkdir(parents=True)
    return folder


def test_init_writes_a_pipeline_that_points_at_the_images(images: Path, tmp_path: Path) -> None:
    starter.write_pipeline(images, tmp_path / "new.toml")
    document = tomllib.loads((tmp_path / "new.toml").read_text())
    assert document["data"]["path"] == str(images)
    assert document["name"] == "My-flowers"


def test_init_keeps_a_file_that_is_there(images: Path, tmp_path: Path) -> None:
    (tmp_path / "new.toml").write_text("mine")
    with pytest.raises(ConfigError, match="already there"):
        starter.write_pipeline(images, tmp_path / "new.toml")


def test_init_names_the_folder_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="train has no folder"):
        starter.write_pipeline(tmp_path, tmp_path / "new.toml")
