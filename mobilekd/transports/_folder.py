"""A device that is a folder of this host: files by digest, commands in process groups of their own."""

import contextlib
import errno
import fcntl
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from mobilekd.artifacts import digest_file
from mobilekd.errors import DeviceError
from mobilekd.locks import try_lock
from mobilekd.transport import Completed

_STORE_DAYS = 7.0
_NOT_FOUND, _NOT_EXECUTABLE = 127, 126
_SIGNAL_BASE = 128
_SHORT = "/tmp"  # noqa: S108 - a folder of its own is made in it


class Folder:
    """ROOT/store keeps pushed files by digest; ROOT/work-* is the working folder of one use, gone after it."""

    def __init__(self, root: Path) -> None:
        root = root.resolve()  # commands run in another folder than ours
        self._store = root / "store"
        self._store.mkdir(parents=True, exist_ok=True)
        _remove_left_behind(root)
        # The lock comes first: a folder without one is never tidied away, and one with a lock that nobody holds is.
        handle, lock = tempfile.mkstemp(prefix="work-", suffix=".lock", dir=root)
        self._held = os.fdopen(handle, "a")
        self._lock = Path(lock)
        fcntl.flock(self._held, fcntl.LOCK_EX)
        self.work = self._lock.with_suffix("")
        self.work.mkdir()

    def close(self) -> None:
        """Remove the working folder, and from the store what nothing asked for in a week."""
        shutil.rmtree(self.work, ignore_errors=True)
        _remove_short(self._short_note)
        self._lock.unlink(missing_ok=True)
        self._held.close()
        oldest = time.time() - _STORE_DAYS * 86_400
        for file in self._store.iterdir():
            with contextlib.suppress(FileNotFoundError):  # another use may tidy the same store
                if file.stat().st_mtime < oldest:
                    file.unlink()

    def short(self) -> Path:
        """Make an empty folder with a short path, which goes with the working folder, after a kill with the next use.

        A socket's path has at most 107 bytes, and the working folder's may be longer than that.
        """
        near = Path(_SHORT if os.access(_SHORT, os.W_OK) else tempfile.gettempdir())
        folder = near / f"mobilekd-{secrets.token_hex(4)}"
        self._short_note.symlink_to(folder)  # first, so that no kill leaves a folder that nothing names
        folder.mkdir(mode=0o700)
        return folder

    @property
    def _short_note(self) -> Path:
        return self._lock.with_suffix(".short")

    def push(self, files: Mapping[str, Path]) -> int:
        """See `Transport.push`; a file is a link to the store's copy."""
        sent = 0
        for name, source in files.items():
            executable = os.access(source, os.X_OK)
            stored = self._store / f"{digest_file(source)}{'.x' if executable else ''}"
            sent += _copy(source, stored, executable=executable)
            place = self.path(name)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.unlink(missing_ok=True)
            place.hardlink_to(stored)
        return sent

    def run(self, argv: Sequence[str], *, timeout_s: float, env: Mapping[str, str], name: str = "") -> Completed:
        """See `Transport.run`; `env` is all of the environment, `name` stands for argv[0] in messages."""
        name = name or argv[0]
        try:
            process = subprocess.Popen(
                argv,
                cwd=self.work,
                env=dict(env),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                start_new_session=True,
            )
        except (FileNotFoundError, NotADirectoryError) as cause:
            return Completed(_NOT_FOUND, "", f"{name}: {cause.strerror}\n")
        except OSError as cause:
            if cause.errno not in (errno.EACCES, errno.ENOEXEC):
                raise DeviceError(f"{name} can't be started: {cause.strerror}", code="MKD-507") from cause
            return Completed(_NOT_EXECUTABLE, "", f"{name}: {cause.strerror}\n")
        with _ended(process):
            try:
                stdout, stderr = process.communicate(timeout=timeout_s)
            except subprocess.TimeoutExpired as cause:
                raise DeviceError(
                    f"{name} ran past {timeout_s:g} s and was ended",
                    hint="give it more time, or fewer runs",
                    code="MKD-504",
                ) from cause
        code = process.returncode
        return Completed(_SIGNAL_BASE - code if code < 0 else code, stdout, stderr)

    def pull(self, name: str, to: Path) -> None:
        """See `Transport.pull`."""
        source = self.path(name)
        if not source.is_file():
            raise DeviceError(
                f"there is no file {name} on the device", hint="did the command that writes it run?", code="MKD-507"
            )
        _copy(source, to, executable=os.access(source, os.X_OK), again=True)

    def path(self, name: str) -> Path:
        """Return where a name of the device is on this host.

        Raises:
            DeviceError: The name leads out of the folder.
        """
        place = (self.work / name).resolve()
        if not place.is_relative_to(self.work.resolve()) or place == self.work.resolve():
            raise DeviceError(f"{name!r} is no name inside the device's folder")
        return place


@contextlib.contextmanager
def _ended(process: subprocess.Popen[str]) -> Iterator[None]:
    """End the whole process group of a command when we leave it before it ended."""
    try:
        yield
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def _copy(source: Path, to: Path, *, executable: bool, again: bool = False) -> int:
    """Copy a file so that it appears complete or not at all; return the bytes copied."""
    if to.exists() and not again:
        os.utime(to)
        return 0
    size = source.stat().st_size
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".push-", dir=to.parent) as scratch:
            part = Path(scratch) / "part"
            shutil.copyfile(source, part)
            part.chmod(0o755 if executable else 0o644)
            part.replace(to)
    except OSError as cause:
        if cause.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise DeviceError(f"{to}: {cause.strerror}", code="MKD-510") from cause
        free = shutil.disk_usage(to.parent).free
        raise DeviceError(
            f"no space left for {source.name} in {to.parent}: {size:,} bytes needed, {free:,} free", code="MKD-510"
        ) from cause
    return size


def _remove_left_behind(root: Path) -> None:
    """Remove working folders whose process is gone; the lock of one that lives is held."""
    for lock in root.glob("work-*.lock"):
        with contextlib.suppress(FileNotFoundError), lock.open("a") as stream:
            if not try_lock(stream):
                continue
            shutil.rmtree(root / lock.stem, ignore_errors=True)
            lock.with_suffix(".counts").unlink(missing_ok=True)
            _remove_short(lock.with_suffix(".short"))
            lock.unlink(missing_ok=True)


def _remove_short(note: Path) -> None:
    """Remove a short folder and the link that names it, where there is one."""
    if note.is_symlink():
        shutil.rmtree(note.readlink(), ignore_errors=True)
        note.unlink(missing_ok=True)
