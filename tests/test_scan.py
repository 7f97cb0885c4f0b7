from pathlib import Path

import pytest

from mobilekd.errors import ConfigError
from mobilekd.scan import Scanner
from tests.toys import Silent


def scanner(tmp_path: Path) -> Scanner:
    return Scanner(tmp_path / "files.sqlite", Silent(), settle_s=0)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    (folder / "cat").mkdir(parents=True)
    (folder / "cat" / "1.jpg").write_bytes(b"cat")
    (folder / "2.jpg").write_bytes(b"two")
    return folder


def test_a_scan_reads_a_file_that_did_not_change_once(
    tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = scanner(tmp_path).digest(images)
    monkeypatch.setattr("mobilekd.scan.digest_file", lambda path: pytest.fail(f"read {path} again"))
    assert scanner(tmp_path).digest(images) == first


def test_a_scan_sees_a_change_of_content_name_and_number(tmp_path: Path, images: Path) -> None:
    digests = [scanner(tmp_path).digest(images)]
    (images / "2.jpg").write_bytes(b"owt")
    digests.append(scanner(tmp_path).digest(images))
    (images / "2.jpg").rename(images / "3.jpg")
    digests.append(scanner(tmp_path).digest(images))
    (images / "4.jpg").write_bytes(b"")
    digests.append(scanner(tmp_path).digest(images))
    assert len(set(digests)) == 4


def test_a_scan_of_equal_folders_is_equal(tmp_path: Path, images: Path) -> None:
    first = scanner(tmp_path).digest(images)
    assert scanner(tmp_path).digest(images.rename(tmp_path / "elsewhere")) == first


def test_a_scan_follows_links_and_ends_in_a_circle(tmp_path: Path, images: Path) -> None:
    (images / "dog").symlink_to(images / "cat")
    before = scanner(tmp_path).digest(images)
    (images / "circle").symlink_to(images)
    assert scanner(tmp_path).digest(images) == before
    (images / "cat" / "1.jpg").write_bytes(b"tac")
    assert scanner(tmp_path).digest(images) != before


def test_a_broken_scan_database_only_costs_time(tmp_path: Path, images: Path) -> None:
    first = scanner(tmp_path).digest(images)
    (tmp_path / "files.sqlite").write_bytes(b"not a database" * 100)
    assert scanner(tmp_path).digest(images) == first


def test_a_file_that_was_just_written_is_not_remembered(tmp_path: Path, images: Path) -> None:
    Scanner(tmp_path / "files.sqlite", Silent(), settle_s=60).digest(images)
    (images / "2.jpg").write_bytes(b"owt")
    fresh = scanner(tmp_path).digest(images)
    assert fresh == Scanner(tmp_path / "other.sqlite", Silent()).digest(images)


def test_scanning_what_is_not_there_names_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere"):
        scanner(tmp_path).digest(tmp_path / "nowhere")
