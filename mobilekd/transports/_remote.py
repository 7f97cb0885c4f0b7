"""A device behind a shell: all that adb and ssh have in common."""

import abc
import os
import secrets
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from mobilekd.errors import DeviceError
from mobilekd.transport import Completed, DeviceFacts, LatencyKind, Patience
from mobilekd.transports import _facts, _shell
from mobilekd.transports._holding import DEVICE_STEP_S, Owner, Wait, held, host_lock, lock_of
from mobilekd.transports._shell import Content, Reply

_ASK_TIMEOUT_S = 60.0
_SLOWEST_BYTES_S = 100_000  # what a bad wireless link still carries: a push that is slower has stopped
_NO_FILE = 66
_FULL = "no space left"


class ShellTimeoutError(Exception):
    """A script ran past its time; the client on this host was ended."""


class Remote(abc.ABC):
    """A transport whose device runs `sh`; adb and ssh say how to reach it.

    On the device, below one folder: `store/` with content by sha256, `job-…/` with this use's working folder, `lock/`.
    """

    latency_kind: ClassVar[LatencyKind] = "wall"

    def __init__(self, *, folder: str, state: Path, patience: Patience) -> None:
        self._root = folder
        self._patience = patience
        self._state = state
        self._owner = Owner.this()
        self._job = f"job-{os.getpid()}-{secrets.token_hex(4)}"
        self._held = ExitStack()

    @property
    @abc.abstractmethod
    def label(self) -> str:
        """Return what messages call the device, as "adb device R58M"."""

    @abc.abstractmethod
    def _connect(self, held: ExitStack) -> None:
        """Reach the device, or raise MissingToolError or DeviceError; what must be undone goes onto `held`."""

    @abc.abstractmethod
    def _client(self, command: str) -> list[str]:
        """Return the argv of a client that runs a shell command on the device, bytes in and out unchanged."""

    @abc.abstractmethod
    def _send(self, local: Path, remote: str, timeout_s: float) -> str:
        """Copy one file and return what the client complained of; empty when it went well."""

    @abc.abstractmethod
    def _lost(self, complaint: str, doing: str) -> DeviceError:
        """Return the error for a connection that ended while `doing`."""

    def __enter__(self) -> Self:
        """Take the device; see `mobilekd.transport.Transport`."""
        self._owner = Owner.this()
        with ExitStack() as held_so_far:
            self._connect(held_so_far)
            wait = Wait(self._patience)
            held_so_far.enter_context(host_lock(lock_of(self._state, self.label), self.label, self._owner, wait))
            self._take(wait)
            self._held = held_so_far.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Let the device go.

        Raises:
            DeviceError: It could not be cleaned; not raised over an error that is on its way already.
        """
        with self._held:
            try:
                self._ask(_shell.leave(self._root, self._job, str(self._owner)), "cleaning up")
            except DeviceError:
                if error is None:
                    raise

    def push(self, files: Mapping[str, Path]) -> int:
        """Copy files to the device; see `mobilekd.transport.Transport`."""
        if not files:
            return 0
        paths = {_shell.check_name(name): path for name, path in files.items()}
        contents = {name: Content.of(path) for name, path in paths.items()}
        sources = {content.key: (content, paths[name]) for name, content in contents.items()}
        there = self._whole(f"{self._root}/store", [content for content, _ in sources.values()])
        missing = {key: source for key, source in sources.items() if key not in there}
        if missing:
            self._send_all(missing)
        keys = {name: content.key for name, content in contents.items()}
        self._do(_shell.place(f"{self._root}/store", f"{self._job_folder}/work", keys), "placing files")
        return sum(content.size_bytes for content, _ in missing.values())

    def run(self, argv: Sequence[str], *, timeout_s: float, env: Mapping[str, str] | None = None) -> Completed:
        """Run a command in our folder; see `mobilekd.transport.Transport`."""
        script = _shell.run(self._job_folder, call := f"pid-{secrets.token_hex(4)}", argv, env or {})
        try:
            reply = self._call(script, timeout_s, f"{argv[0]} ran: the run is incomplete")
        except ShellTimeoutError as cause:
            raise DeviceError(
                f"{argv[0]} ran past {timeout_s:g} s on {self.label}; {self._end(call)}",
                hint="see what keeps the device busy, then start again; a smaller --images gives it less work",
                code="MKD-504",
            ) from cause
        return Completed(reply.returncode, reply.stdout.decode(errors="replace"), reply.stderr.decode(errors="replace"))

    def pull(self, name: str, to: Path) -> None:
        """Copy one file back; see `mobilekd.transport.Transport`."""
        path = f"{self._job_folder}/work/{_shell.check_name(name)}"
        reply = self._ask(_shell.read(path), f"{name} was copied back")
        if reply.returncode == _NO_FILE:
            hint = "see what the command before it printed"
            raise DeviceError(f"{self.label} has no file {name!r}", hint=hint, code="MKD-507")
        if reply.returncode:
            raise DeviceError(f"{self.label} can't read {name!r}: {reply.complaint}", code="MKD-507")
        part = to.with_name(f".{to.name}.part")
        part.write_bytes(reply.stdout)
        part.replace(to)

    def facts(self) -> DeviceFacts:
        """Return what the device says of itself."""
        reply = self._ask(_facts.SCRIPT, "its facts were read")
        return _facts.read_facts(reply.stdout.decode(errors="replace"), self.label)

    @property
    def _job_folder(self) -> str:
        return f"{self._root}/{self._job}"

    def _take(self, wait: Wait) -> None:
        while True:
            reply = self._ask(_shell.take(self._root, self._job, str(self._owner)), "the device was taken")
            if reply.returncode:
                raise DeviceError(
                    f"{self.label}: can't work in {self._root}: {reply.complaint or 'no space is left'}",
                    hint="choose a folder that this user may write, on a file system with free space",
                    code="MKD-510",
                )
            root, verdict, *holder = reply.lines
            if verdict == "taken":
                self._root = root
                return
            owner = Owner.parse(" ".join(holder))
            # The host's lock is ours, so a holder of this host that does not live left its lock behind.
            if owner and owner.is_gone:
                self._do(_shell.break_lock(root), "taking over a stale lock")
            else:
                hint = f"if that is over, remove its lock: {self._remedy(f'rm -r {root}/lock')}"
                wait.pause(held(self.label, " ".join(holder), hint), DEVICE_STEP_S)

    def _remedy(self, command: str) -> str:
        return f"`{command}` on the device"

    def _whole(self, folder: str, contents: Sequence[Content]) -> set[str]:
        reply = self._do(_shell.find_contents(folder, contents), "looking for files", timeout_s=10 * _ASK_TIMEOUT_S)
        return set(reply.lines)

    def _send_all(self, missing: Mapping[str, tuple[Content, Path]]) -> None:
        needed_bytes = sum(content.size_bytes for content, _ in missing.values())
        free_bytes = self._free_bytes()
        if free_bytes is not None and free_bytes < needed_bytes:
            raise self._full(needed_bytes, free_bytes)
        incoming = f"{self._job_folder}/incoming"
        for content, path in missing.values():
            timeout_s = _ASK_TIMEOUT_S + content.size_bytes / _SLOWEST_BYTES_S
            trouble = self._send(path, f"{incoming}/{content.key}", timeout_s)
            if trouble:
                # Asking also finds out whether the device is still there.
                self._do(_shell.empty(incoming), "cleaning up")
                left_bytes = self._free_bytes()
                if _FULL in trouble.lower():
                    raise self._full(needed_bytes, left_bytes)
                raise DeviceError(f"{path} could not be copied to {self.label}: {trouble}", code="MKD-507")
        arrived = self._whole(incoming, [content for content, _ in missing.values()])
        damaged = [str(path) for key, (_, path) in missing.items() if key not in arrived]
        if damaged:
            told = f"{', '.join(damaged)}: arrived damaged on {self.label}"
            raise DeviceError(told, hint="check the cable and the storage", code="MKD-507")
        self._do(_shell.keep_contents(incoming, f"{self._root}/store", list(missing)), "keeping files")

    def _full(self, needed_bytes: int, free_bytes: int | None) -> DeviceError:
        free = "an unknown number of" if free_bytes is None else f"{free_bytes:,}"
        return DeviceError(
            f"{self.label} has no space: {needed_bytes:,} bytes needed, {free} bytes free in {self._root}",
            hint=f"free some: {self._remedy(f'rm -r {self._root}/store')} removes what earlier runs left",
            code="MKD-510",
        )

    def _free_bytes(self) -> int | None:
        return _facts.read_free_bytes(self._ask(_shell.free(self._root), "its free space was read").lines)

    def _end(self, call: str) -> str:
        """End the command that ran past its time and say how that went."""
        try:
            reply = self._ask(_shell.end(self._job_folder, call), "the command was ended")
        except DeviceError as lost:
            return f"and it could not be ended there: {lost.message}"
        return "it was ended there" if reply.lines == ["ended"] else "and it can't be ended there"

    def _do(self, script: str, doing: str, timeout_s: float = _ASK_TIMEOUT_S) -> Reply:
        """Run a script of ours that must succeed."""
        reply = self._ask(script, doing, timeout_s)
        if reply.returncode:
            raise DeviceError(f"{self.label}: {doing} failed: {reply.complaint or reply.returncode}", code="MKD-507")
        return reply

    def _ask(self, script: str, doing: str, timeout_s: float = _ASK_TIMEOUT_S) -> Reply:
        try:
            return self._call(script, timeout_s, doing)
        except ShellTimeoutError as cause:
            told = f"{self.label} gave no answer within {timeout_s:.0f} s while {doing}"
            raise DeviceError(told, code="MKD-504") from cause

    def _call(self, script: str, timeout_s: float, doing: str) -> Reply:
        token = _shell.new_token()
        client = subprocess.Popen(
            self._client("sh"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=self._env()
        )
        with client, ExitStack() as undone:
            undone.callback(self._after_kill)
            undone.callback(client.kill)
            try:
                stdout, stderr = client.communicate(_shell.framed(script, token), timeout=timeout_s)
            except subprocess.TimeoutExpired as cause:
                raise ShellTimeoutError from cause
            undone.pop_all()
        end = _shell.read_end(stdout, token)
        if end is None:
            raise self._lost(stderr.decode(errors="replace").strip(), doing)
        return Reply(end[0], end[1], stderr)

    @abc.abstractmethod
    def _after_kill(self) -> None:
        """Put the connection right after a client was killed in the middle of a command."""

    def _env(self) -> dict[str, str] | None:
        """Return the environment of the client; None for our own."""
        return None
