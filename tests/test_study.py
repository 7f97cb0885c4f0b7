"""Places of a study that can't be used: told as a mistake of the user's, without the password."""

import importlib.util
from pathlib import Path

import pytest

from mobilekd.errors import ConfigError, MissingToolError
from mobilekd.study import shown_study
from mobilekd.sweep_store import open_study

optuna = pytest.importorskip("optuna")


def opened(where: str):
    return open_study(where, "plan", optuna.samplers.RandomSampler(seed=0))


@pytest.mark.parametrize("content", ["garbage\n", "[1]\n", '{"op_code": 0}\n', "\x00\xff\n"])
def test_a_file_that_is_no_journal_is_refused(tmp_path: Path, content) -> None:
    path = tmp_path / "study.journal"
    path.write_text(content, encoding="latin-1")
    with pytest.raises(ConfigError, match="line 1 is no entry of a journal") as refused:
        opened(str(path))
    assert (refused.value.code, path.name in refused.value.message) == ("MKD-264", True)


def test_a_journal_whose_last_line_was_cut_off_by_a_kill_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "study.journal"
    opened(str(path))
    path.write_bytes(path.read_bytes() + b'{"op_co')
    assert opened(str(path)).user_attrs == {"plan": "plan"}


@pytest.mark.parametrize("text", ["a note of mine", "", '{"op_co'])
def test_a_file_without_a_whole_entry_is_left_as_it_is(tmp_path: Path, text) -> None:
    path = tmp_path / "notes.txt"
    path.write_text(text + "\nmore", encoding="utf-8")
    with pytest.raises(ConfigError, match="no entry of a journal"):
        opened(str(path))
    assert path.read_text(encoding="utf-8") == text + "\nmore"


@pytest.mark.parametrize(
    ("where", "reason"),
    [
        ("sqlite:////nonexistent/x.db", "unable to open database file"),
        ("foo://ann:secret@bar", "Can't load plugin"),
        ("://", "no URL of a database"),
        ("postgresql://ann:secret@db:port/x", "no URL of a database"),
    ],
)
def test_a_database_that_can_not_be_used_is_refused_with_its_name(where, reason) -> None:
    with pytest.raises(ConfigError, match=reason) as refused:
        opened(where)
    assert shown_study(where) in refused.value.message
    assert "secret" not in refused.value.message


def test_a_file_in_place_of_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="can't be used"):
        opened(str(tmp_path / "file" / "study.journal"))


@pytest.mark.skipif(importlib.util.find_spec("MySQLdb") is not None, reason="the driver is installed")
def test_a_missing_driver_is_a_missing_tool_with_its_package() -> None:
    with pytest.raises(MissingToolError, match="the module MySQLdb is not installed") as missing:
        opened("mysql://ann:secret@db/x")
    assert missing.value.hint.startswith("pip install mysqlclient")
    assert "secret" not in missing.value.message


@pytest.mark.parametrize("where", ["postgresql://ann:p@ss:word@db/x", "mysql+x://ann:p@db/x?a=1&password=p"])
def test_a_password_is_never_shown(where) -> None:
    assert "p@" not in shown_study(where)
    assert "password=p" not in shown_study(where)
