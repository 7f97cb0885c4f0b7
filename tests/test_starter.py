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


@pytest.mark.parametrize("top", ["train", "."])
def test_init_holds_images_out_where_there_is_no_val(tmp_path: Path, top: str) -> None:
    (tmp_path / "photos" / top / "rose").mkdir(parents=True)
    assert starter.write_pipeline(tmp_path / "photos", tmp_path / "new.toml") == 0.2
    data = tomllib.loads((tmp_path / "new.toml").read_text())["data"]
    assert (data["path"], data["test_share"]) == (str(tmp_path / "photos"), 0.2)


@pytest.mark.parametrize(("made", "named"), [("train", "train"), ("train/rose", "val"), ("val/rose", "train")])
def test_init_names_the_folder_that_has_no_class(tmp_path: Path, made: str, named: str) -> None:
    images = tmp_path / "images"
    (images / made).mkdir(parents=True)
    (images / "val").mkdir(exist_ok=True)
    with pytest.raises(ConfigError, match=f"{named} has no folder of a class"):
        starter.write_pipeline(images, tmp_path / "new.toml")
