"""The place of a study: a journal file or a database; what can't be opened or reached is told without its password."""

import json
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from mobilekd.errors import ConfigError, MissingToolError, one_line

if TYPE_CHECKING:
    from optuna import Study
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

    Retry = Callable[[Study, FrozenTrial], None]

_HEARTBEAT_S = 60
_SHOWN_CHARACTERS = 200
_HINT = (
    "--study FILE.journal, sqlite:////FOLDER/FILE.db or postgresql://USER:PASSWORD@HOST/NAME, in a place that is there"
)
_PACKAGES = {"psycopg": "'psycopg[binary]'", "psycopg2": "psycopg2-binary", "MySQLdb": "mysqlclient"}
"""Module -> package, where the names differ."""


def shown_study(where: str) -> str:
    """Return a place as messages may show it.

    Example:
        >>> shown_study("postgresql://ann:secret@db/study?password=secret")
        'postgresql://ann:***@db/study?password=***'
    """
    masked = re.sub(r"(://[^:/@]*):.*@", r"\1:***@", where)
    return one_line(re.sub(r"(password=)[^&]*", r"\1***", masked), _SHOWN_CHARACTERS)


def open_storage(where: str, retry: "Callable[[], Retry]") -> "BaseStorage":
    """Return what keeps a study.

    Args:
        where: A journal file on this host, or the URL of a database: any that SQLAlchemy knows.
        retry: Makes what is called with a trial of another host that gave no heartbeat.

    Raises:
        ConfigError: The file is no journal, or the URL names no database.
        MissingToolError: The driver of the database is not installed.
    """
    from optuna.exceptions import ExperimentalWarning
    from optuna.storages import JournalStorage, RDBStorage
    from optuna.storages.journal import JournalFileBackend

    with warnings.catch_warnings():  # journals and heartbeats work, but their interface may still change
        warnings.simplefilter("ignore", ExperimentalWarning)
        if "://" not in where:
            _check_journal(where)
            return JournalStorage(JournalFileBackend(where))
        _check_url(where)
        try:
            return RDBStorage(where, heartbeat_interval=_HEARTBEAT_S, heartbeat_stale_trial_callback=retry())
        except ImportError as cause:
            raise _no_driver(where, cause) from cause


@contextmanager
def reaching(where: str) -> Iterator[None]:
    """Tell a failure of the study's database as one of the user's place.

    Raises:
        ConfigError: It can't be opened, or was lost.
    """
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (SQLAlchemyError, StorageInternalError) as cause:
        raise _refused(where, str(getattr(cause, "orig", None) or cause)) from cause


def _check_journal(where: str) -> None:
    """Accept a file that is not there yet, or that holds a journal; an entry that a kill cut off is dropped.

    Optuna would write its next entry behind the half one, and never read the file again.
    """
    path = Path(where)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = path.read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        return
    except OSError as cause:
        raise _refused(where, str(cause.strerror)) from cause
    is_cut = len(lines) > 1 and not lines[-1].endswith(b"\n")
    for number, line in enumerate(lines[:-1] if is_cut else lines, start=1):
        if not _is_entry(line):
            told = one_line(line.decode(errors="replace").strip())
            raise _refused(where, f"line {number} is no entry of a journal: {told}")
    if is_cut:
        _drop_cut_entry(path)


def _drop_cut_entry(path: Path) -> None:
    """Shorten a journal to its last whole line, under its lock: another process may just have been writing it."""
    from optuna.storages.journal import JournalFileSymlinkLock

    lock = JournalFileSymlinkLock(str(path))
    lock.acquire()
    try:
        content = path.read_bytes()
        with path.open("r+b") as file:
            file.truncate(content.rfind(b"\n") + 1)
    finally:
        lock.release()


def _is_entry(line: bytes) -> bool:
    try:
        entry = json.loads(line)
    except ValueError:
        return False
    return isinstance(entry, dict) and {"op_code", "worker_id"} <= entry.keys()


def _check_url(where: str) -> None:
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        make_url(where)
    except (ArgumentError, ValueError) as cause:  # ValueError: a port that is no number
        raise _refused(where, "it is no URL of a database") from cause


def _refused(where: str, reason: str) -> ConfigError:
    told = shown_study(reason.strip().partition("\n")[0])
    return ConfigError(f"the study {shown_study(where)} can't be used: {told}", hint=_HINT, code="MKD-264")


def _no_driver(where: str, cause: ImportError) -> MissingToolError:
    """Return what names the module: Optuna tells of a missing one in words of its own, and keeps the cause."""
    found = cause.__cause__ or cause.__context__ or cause
    module = (getattr(found, "name", None) or where.partition(":")[0]).partition(".")[0]
    return MissingToolError(
        f"no driver for the study {shown_study(where)}: the module {module} is not installed",
        hint=f"pip install {_PACKAGES.get(module, module)}, or --study FILE.journal on one host",
        code="MKD-302",
    )
