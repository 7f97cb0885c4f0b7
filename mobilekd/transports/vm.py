"""An arm64 virtual machine with a real kernel, adbd and sshd: stands in for a phone (adb) or a board (ssh)."""

import contextlib
import dataclasses
import os
import shutil
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Literal, Self

from mobilekd.device import guest
from mobilekd.device.guarded import Guarded
from mobilekd.device.machine import Machine, MachineSpec, free_ports, qemu_version
from mobilekd.errors import DeviceError, MissingToolError
from mobilekd.process import tail
from mobilekd.transport import PATIENT, Completed, DeviceFacts, LatencyKind, Patience
from mobilekd.transports._remote import Remote
from mobilekd.transports.adb import Adb, private_server_env
from mobilekd.transports.ssh import Ssh

Client = Literal["adb", "ssh"]
"""How a running machine is reached."""

_FOLDER = "/data/local/tmp/mobilekd"
_CONNECT_TIMEOUT_S = 60.0
_ANSWER_TIMEOUT_S = 5.0
_SERVER_TRIES = 3
_POLL_S = 0.05


class Vm:
    """A machine that is booted when the device is taken and ended when it is let go."""

    latency_kind: ClassVar[LatencyKind] = "guest_instructions"

    def __init__(
        self,
        cpu: str = "cortex-a76",
        *,
        state: Path,
        cores: int = 1,
        memory_mib: int = 1024,
        via: Client = "adb",
        icount: bool = False,
    ) -> None:
        """Describe the machine; nothing is started yet.

        Args:
            cpu: A CPU model of qemu.
            state: Folder of this host where `mobilekd.device.guest.prepare` made the machine's parts.
            cores: Number of CPUs.
            memory_mib: Main memory; half of it holds pushed files.
            via: How it is reached once it runs.
            icount: The guest's clock counts instructions: one nanosecond is one instruction. One core only.
        """
        self._spec = MachineSpec(cpu, cores, memory_mib, icount)
        self._state = state
        self._via = via
        self._held = ExitStack()
        self._machine: Machine | None = None
        self._remote: Remote | None = None

    @property
    def is_counting(self) -> bool:
        """Return whether a nanosecond of the machine's clock is one instruction."""
        return self._spec.is_counting

    @property
    def machine(self) -> Machine:
        """Return the running machine.

        Raises:
            DeviceError: It does not run: the context is not open.
        """
        if self._machine is None:
            raise DeviceError("the virtual machine is not running")
        return self._machine

    def __enter__(self) -> Self:
        """Boot the machine and take it.

        Raises:
            MissingToolError: Its parts are not made, or qemu, adb or ssh is not installed.
            DeviceError: It did not come up.
        """
        made = guest.find(self._state)
        if made is None:
            raise MissingToolError(
                "the virtual machine's parts are not on this machine",
                hint="mobilekd devices setup makes them",
                code="MKD-304",
            )
        with ExitStack() as held:
            self._machine = held.enter_context(Machine(made, self._spec, self._state))
            held.callback(self._forget)
            self._remote = held.enter_context(self._reach(held))
            self._held = held.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # The machine ends with all that is in it; what the transport can't clean any more needs no cleaning.
        with contextlib.suppress(DeviceError):
            self._held.__exit__(kind, error, traceback)

    def push(self, files: Mapping[str, Path]) -> int:
        """Copy files to the machine; see `mobilekd.transport.Transport`."""
        return self._reached.push(files)

    def run(self, argv: Sequence[str], *, timeout_s: float, env: Mapping[str, str] | None = None) -> Completed:
        """Run a command in our folder; see `mobilekd.transport.Transport`."""
        try:
            return self._reached.run(argv, timeout_s=timeout_s, env=env)
        except DeviceError as error:
            if self.machine.is_running:
                raise
            raise DeviceError(
                f"{error.message}\n{self.machine.console_tail()}", hint=error.hint, code="MKD-511"
            ) from error

    def pull(self, name: str, to: Path) -> None:
        """Copy one file back; see `mobilekd.transport.Transport`."""
        self._reached.pull(name, to)

    def facts(self) -> DeviceFacts:
        """Return what the machine says of itself, under a name that says that it is emulated."""
        name = f"emulated {self._spec.cpu} (qemu {qemu_version()})"
        return dataclasses.replace(self._reached.facts(), name=name)

    @property
    def _reached(self) -> Remote:
        if self._remote is None:
            raise DeviceError("the virtual machine is not running")
        return self._remote

    def _forget(self) -> None:
        self._machine = self._remote = None

    def _reach(self, held: ExitStack) -> Remote:
        # Nobody else knows the machine: the lock on it is in this boot's folder, and goes with that.
        boot = self.machine.console.parent
        if self._via == "ssh":
            return ssh_to(self.machine, boot)
        port = held.enter_context(AdbServer(self._state)).port
        return adb_to(self.machine, boot, server_port=port)


def find_client() -> Client:
    """Return how a machine can be booted and reached from this host: by adb where it is installed, else by ssh.

    Raises:
        MissingToolError: A program that boots or reaches it is not installed.
    """
    client: Client = "adb" if shutil.which("adb") else "ssh"
    packages = {"qemu-system-aarch64": "qemu-system-arm", client: "openssh-client", "ssh-keygen": "openssh-client"}
    for program, package in packages.items():
        if shutil.which(program) is None:
            raise MissingToolError(f"{program} is not on PATH", hint=f"apt-get install {package}", code="MKD-301")
    return client


class AdbServer:
    """An adb server apart from the user's own, which ends with this process in whatever way that ends."""

    def __init__(self, state: Path) -> None:
        self._log = state / "boots" / "last-adb-server.log"
        self._server: Guarded | None = None
        self.port = 0

    def __enter__(self) -> Self:
        self._log.parent.mkdir(parents=True, exist_ok=True)
        for _ in range(_SERVER_TRIES):  # another process may take the port between our look and the server's
            (self.port,) = free_ports(1)
            env = private_server_env(dict(os.environ), self.port)
            self._server = Guarded(["adb", "-P", str(self.port), "nodaemon", "server"], self._log, env=env)
            if self._wait(self._server):
                return self
            self._server.stop()
        raise DeviceError(f"no adb server came up on port {self.port}\n{tail(self._log)}", code="MKD-511")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.stop()

    def _wait(self, server: Guarded) -> bool:
        """Return whether it came up: a client that finds nobody starts a server of its own, which would outlive us."""
        deadline = time.monotonic() + _CONNECT_TIMEOUT_S
        while server.is_running and time.monotonic() < deadline:
            if _is_adb(self.port):
                return server.is_running
            time.sleep(_POLL_S)
        return False


def adb_to(
    machine: Machine, state: Path, *, server_port: int, folder: str = _FOLDER, patience: Patience = PATIENT
) -> Adb:
    """Return the adb transport to a running machine."""
    return Adb(
        f"127.0.0.1:{machine.adb_port}",
        state=state,
        folder=folder,
        server_port=server_port,
        connect_timeout_s=_CONNECT_TIMEOUT_S,
        patience=patience,
    )


def ssh_to(machine: Machine, state: Path, *, folder: str = _FOLDER, patience: Patience = PATIENT) -> Ssh:
    """Return the ssh transport to a running machine: nothing of the user's own configuration is read."""
    options = {"UserKnownHostsFile": str(machine.known_hosts), "IdentitiesOnly": "yes", "StrictHostKeyChecking": "yes"}
    words = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    return Ssh(
        "root@127.0.0.1",
        state=state,
        folder=folder,
        options=("-F", "none", "-i", str(machine.key), "-p", str(machine.ssh_port), *words),
        connect_timeout_s=_CONNECT_TIMEOUT_S,
        patience=patience,
    )


def _is_adb(port: int) -> bool:
    """Return whether an adb server answers on a port of this host."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=_ANSWER_TIMEOUT_S) as client:
            client.sendall(b"000chost:version")
            return client.recv(4, socket.MSG_WAITALL) == b"OKAY"
    except OSError:
        return False
