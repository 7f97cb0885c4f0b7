from pathlib import Path

import pytest

from mobilekd import cli
from mobilekd.errors import ConfigError
from mobilekd.paths import check_folder


def test_a_folder_may_be_made_below_one_that_is_there(tmp_path: Path):
    check_folder("--keep", tmp_path / "new" / "newer")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["file", "file/below"])
def test_a_file_in_the_way_of_a_folder_is_named(tmp_path: Path, name: str):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ConfigError, match=f"--keep {tmp_path / name}: {tmp_path / 'file'} is a file"):
        check_folder("--keep", tmp_path / name)


def test_a_place_for_what_is_built_again_is_checked_before_anything_is_read(tmp_path: Path, capfd):
    (tmp_path / "file").write_text("mine")
    assert cli.run(["bundle", "reproduce", "nowhere.zip", "--keep", str(tmp_path / "file")]) == 2
    assert "file is a file" in capfd.readouterr().err
