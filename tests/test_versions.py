import os
import shutil
from pathlib import Path

import pytest

import mobilekd
from mobilekd.versions import ABSENT, digest_code, tool_version

PACKAGE = Path(mobilekd.__file__).parent


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return shutil.copytree(PACKAGE / "release", tmp_path / "elsewhere")


def test_a_distribution_that_is_not_installed_is_absent() -> None:
    assert tool_version("no-such-distribution") == ABSENT


def test_code_has_one_digest_in_every_folder(package: Path) -> None:
    assert digest_code(package) == digest_code(PACKAGE / "release")


def test_times_modes_and_compiled_files_do_not_count(package: Path) -> None:
    before = digest_code(package)
    os.utime(package / "pack.py", (0, 0))
    (package / "pack.py").chmod(0o600)
    shutil.rmtree(package / "__pycache__", ignore_errors=True)
    assert digest_code(package) == before


@pytest.mark.parametrize("name", ["pack.py", "report.css"])
def test_one_changed_byte_of_code_or_style_counts(package: Path, name: str) -> None:
    before = digest_code(package)
    (package / name).write_text((package / name).read_text() + "\n")
    assert digest_code(package) != before
