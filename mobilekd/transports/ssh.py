"""A board through the official ssh client, with the user's own configuration and keys.

Files go through `cat` on a connection that stays open, not through scp: small sshds have neither scp nor an sftp
server, and one way is tested on all of them.
"""

import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import ClassVar

from mobilekd.errors import DeviceError, MissingToolError
from mobilekd.transport import PATIENT, LatencyKind, Patience
from mobilekd.transports._remote import Remote

_RETRY_S = 0.3
_PERSIST_S = 60  # the shared connection outlives a killed process by this much
_CLIENT_FAILED = 255  # ssh's own exit code when it, not the command, failed; see ssh(1)
_TRANSIENT = ("connection reset", "kex_exchange_identification", "connection closed by", "broken pipe")
_CAUSES = (
    ("host identification has changed", "has another host key than before", "if that is right: ssh-keygen -R {host}"),
    ("host key verification failed", "has a host key that you have not accepted", "accept it once: ssh {host} true"),
    ("permission denied", "accepts none of your keys", "ssh-copy-id {host}, or name the key in ~/.ssh/config"),
    ("could not resolve hostname", "has a name that nothing knows", "check the name, or add it to ~/.ssh/config"),
    ("connection refused", "refuses the connection", "start its sshd, or give its port in ~/.ssh/config"),
    ("timed out", "gives no answer", "see that it is on and in this network: ping {host}"),
    ("no route to host", "can't be reached from this network", "ping {host}"),
    ("unprotected private key", "has a key file that others can read", "chmod 600 the key"),
)


class Ssh(Remote):
    """One board that ssh reaches."""

    latency_kind: ClassVar[LatencyKind] = "wall"

    def __init__(
        self,
        host: str,
        *,
        state: Path,
        folder: str = ".cache/mobilekd-device",
        options: Sequence[str] = (),
        connect_timeout_s: float = 10.0,
        patience: Patience = PATIENT,
    ) -> None:
        """Name the board; nothing is started yet.

        Args:
            host: As `ssh` takes it: a name in ~/.ssh/config, or user@address.
            state: Folder of this host where the lock is kept.
            folder: Folder on the board, below the user's home unless it starts with a slash.
            options: More words for ssh, as ("-p", "2222").
            connect_timeout_s: Limit of one try; a connection that is reset is tried again that long.
            patience: With somebody else who holds it.

        Raises:
            DeviceError: The host looks like an option.
        """
        super().__init__(folder=folder, state=state, patience=patience)
        if not host or host.startswith("-"):
            raise DeviceError(
                f"{host!r} is no host for ssh", hint="give a name of ~/.ssh/config, or user@address", code="MKD-502"
            )
        self._host = host
        self._options = tuple(options)
        self._connect_timeout_s = connect_timeout_s
        self._control = ""

    @property
    def label(self) -> str:
        """Return "ssh host HOST", with the options that tell two apart."""
        return " ".join(("ssh host", self._host, *_port(self._options)))

    def _connect(self, held: ExitStack) -> None:
        if shutil.which("ssh") is None:
            raise MissingToolError("ssh is not on PATH", hint="apt-get install openssh-client", code="MKD-301")
        # The path of a socket has at most 107 bytes, and ssh appends 17 of its own: the usual temporary folder
        # of some systems is longer than that.
        base = "/tmp" if Path("/tmp").is_dir() else None  # noqa: S108
        folder = held.enter_context(tempfile.TemporaryDirectory(prefix="mkd-", dir=base, ignore_cleanup_errors=True))
        self._control = f"{folder}/c"
        held.callback(self._close)
        deadline = time.monotonic() + self._connect_timeout_s
        while True:
            done = self._ssh(("-o", "LogLevel=ERROR"), "true", timeout_s=self._connect_timeout_s + 20)
            if done.returncode != _CLIENT_FAILED:
                return
            complaint = done.stderr.decode(errors="replace").strip()
            # Refusing is not transient: nothing listens there. A reset is what a starting sshd, or one with
            # MaxStartups reached, does.
            is_transient = any(word in complaint.lower() for word in _TRANSIENT)
            if time.monotonic() > deadline or not is_transient:
                raise self._refused(complaint)
            time.sleep(_RETRY_S)

    def _ssh(self, extra: Sequence[str], command: str, timeout_s: float) -> "subprocess.CompletedProcess[bytes]":
        argv = self._client(command)
        try:
            return subprocess.run(
                [argv[0], *extra, *argv[1:]],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired as cause:
            raise DeviceError(f"{self.label} gave no answer within {timeout_s:.0f} s", code="MKD-504") from cause

    def _close(self) -> None:
        subprocess.run(
            ["ssh", "-o", f"ControlPath={self._control}", "-O", "exit", *self._options, self._host],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=20,
            check=False,
        )

    def _after_kill(self) -> None:
        """Leave the shared connection: the next session on one whose client was killed ends with 255 and no output.

        Seen with OpenSSH 9.2 and dropbear, one time in five. The next command opens a connection of its own.
        """
        self._close()

    def _client(self, command: str) -> list[str]:
        settings = {
            "BatchMode": "yes",
            "ConnectTimeout": f"{self._connect_timeout_s:.0f}",
            "ControlMaster": "auto",
            "ControlPath": self._control,
            "ControlPersist": str(_PERSIST_S),
            "ServerAliveInterval": "5",
            "ServerAliveCountMax": "3",
            "RequestTTY": "no",
        }
        words = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
        return ["ssh", *words, *self._options, self._host, command]

    def _send(self, local: Path, remote: str, timeout_s: float) -> str:
        with local.open("rb") as stream:
            try:
                done = subprocess.run(
                    self._client(f"cat >{shlex.quote(remote)}"),
                    stdin=stream,
                    capture_output=True,
                    timeout=timeout_s,
                    check=False,
                )
            except subprocess.TimeoutExpired as cause:
                raise DeviceError(
                    f"{local} was not copied to {self.label} within {timeout_s:.0f} s", code="MKD-504"
                ) from cause
        said = done.stderr.decode(errors="replace").strip()
        if done.returncode == _CLIENT_FAILED:
            raise self._lost(said, f"{local} was copied")
        return (said or f"cat ended with {done.returncode}") if done.returncode else ""

    def _refused(self, complaint: str) -> DeviceError:
        for pattern, said, hint in _CAUSES:
            if pattern in complaint.lower():
                return DeviceError(
                    f"{self.label} {said}: {_last(complaint)}", hint=hint.format(host=self._host), code="MKD-503"
                )
        return DeviceError(
            f"{self.label} can't be reached: {_last(complaint)}", hint=f"ssh -v {self._host} true", code="MKD-509"
        )

    def _lost(self, complaint: str, doing: str) -> DeviceError:
        return DeviceError(
            f"{self.label} went away while {doing}" + (f" ({_last(complaint)})" if complaint else ""),
            hint=f"ssh {self._host} true shows whether it is back; then start again",
            code="MKD-506",
        )

    def _remedy(self, command: str) -> str:
        return f"ssh {' '.join((*self._options, self._host))} {command}"


def _port(options: Sequence[str]) -> tuple[str, ...]:
    """Return the port among ssh's words: one host may have several boards behind it."""
    return tuple(f"port {options[index + 1]}" for index, word in enumerate(options[:-1]) if word == "-p")


def _last(complaint: str) -> str:
    return complaint.splitlines()[-1] if complaint else "ssh said nothing"


def check_reachable(host: str) -> None:
    """Accept a board that answers and takes one of the user's keys; nothing is left there.

    Raises:
        MissingToolError: ssh is not installed.
        DeviceError: It can't be reached; the message says why.
    """
    with ExitStack() as held:
        Ssh(host, state=Path())._connect(held)
