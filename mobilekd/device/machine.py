"""The arm64 virtual machine while it runs: qemu, two forwarded ports on 127.0.0.1, a console log."""

import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from mobilekd.device import initramfs
from mobilekd.device.guarded import Guarded
from mobilekd.device.guest import Guest
from mobilekd.errors import ConfigError, DeviceError, MissingToolError
from mobilekd.process import tail

_QEMU = "qemu-system-aarch64"
_BOOT_TRIES = 3
_POLL_S = 0.05
_HOST_KEY = re.compile(r"^mobilekd: host key (ssh-ed25519 \S+)", re.MULTILINE)
_READY = re.compile(r"^mobilekd: ready", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class MachineSpec:
    """What the machine is.

    Attributes:
        cpu: A CPU model of qemu, as "cortex-a76".
        cores: Number of CPUs.
        memory_mib: Main memory in MiB; half of it holds pushed files.
        is_counting: One instruction takes one virtual nanosecond, so that the guest's clock counts instructions.
    """

    cpu: str = "cortex-a76"
    cores: int = 1
    memory_mib: int = 1024
    is_counting: bool = False

    def __post_init__(self) -> None:
        if self.is_counting and self.cores != 1:
            raise ConfigError(
                f"a machine that counts instructions has one core, not {self.cores}", hint="set cores to 1"
            )


class Machine:
    """A booted machine; leaving the context, or the end of this process in any way, ends it.

    adbd in the guest asks for no key and gives a root shell, so that the guest reaches no network (`restrict=on`)
    and is reached through 127.0.0.1 only.
    """

    def __init__(self, guest: Guest, spec: MachineSpec, state: Path, *, boot_timeout_s: float = 120.0) -> None:
        self.spec = spec
        self._guest = guest
        self._state = state
        self._boot_timeout_s = boot_timeout_s
        self._folder = Path()
        self._qemu: Guarded | None = None
        self.adb_port = 0
        self.ssh_port = 0

    @property
    def key(self) -> Path:
        """Return the private key that the guest's sshd accepts: made for this boot only."""
        return self._folder / "key"

    @property
    def known_hosts(self) -> Path:
        """Return the file with the guest's host key, which came over its console."""
        return self._folder / "known_hosts"

    @property
    def console(self) -> Path:
        """Return the log of the kernel's console."""
        return self._folder / "console.log"

    @property
    def is_running(self) -> bool:
        """Return whether qemu has not ended."""
        return self._qemu is not None and self._qemu.is_running

    def console_tail(self) -> str:
        """Return the last lines of qemu's messages and of the console, indented for an error message."""
        logs = (self._folder / "qemu.log", self.console)
        return "\n".join(text for text in (tail(log) for log in logs if log.is_file()) if text)

    def __enter__(self) -> Self:
        """Boot.

        Raises:
            MissingToolError: qemu-system-aarch64 or ssh-keygen is not installed.
            DeviceError: It did not come up in time; the message has the end of the console.
        """
        for program, package in ((_QEMU, "qemu-system-arm"), ("ssh-keygen", "openssh-client")):
            if shutil.which(program) is None:
                raise MissingToolError(f"{program} is not on PATH", hint=f"apt-get install {package}", code="MKD-301")
        boots = self._state / "boots"
        boots.mkdir(parents=True, exist_ok=True)
        _remove_stale(boots)
        self._folder = Path(tempfile.mkdtemp(dir=boots, prefix=f"{os.getpid()}-"))
        with ExitStack() as undone:
            undone.callback(self.stop)
            self._make_keys()
            self._boot()
            undone.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End qemu and remove what this boot made; the console log stays as boots/last-console.log."""
        if self._qemu is not None:
            self._qemu.stop()
            self._qemu = None
        if self.console.is_file():
            self.console.replace(self._folder.parent / "last-console.log")
        if self._folder != Path():
            shutil.rmtree(self._folder, ignore_errors=True)

    def _make_keys(self) -> None:
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "mobilekd", "-f", str(self.key)],
            check=True,
            stdin=subprocess.DEVNULL,
            capture_output=True,
        )
        public = self.key.with_suffix(".pub").read_bytes()
        mine = [
            initramfs.directory("root", 0o700),
            initramfs.directory("root/.ssh", 0o700),
            initramfs.file("root/.ssh/authorized_keys", public, 0o600),
        ]
        # The kernel unpacks archives that follow each other into one root.
        with (self._folder / "initramfs").open("wb") as stream:
            stream.write(self._guest.initramfs.read_bytes())
            stream.write(initramfs.archive(mine))

    def _boot(self) -> None:
        for attempt in range(_BOOT_TRIES):
            self.adb_port, self.ssh_port = free_ports(2)
            self._qemu = Guarded(self._argv(), self._folder / "qemu.log")
            if self._wait():
                return
            # Another process took the port between our look and qemu's: nothing else of this can go well later.
            log = (self._folder / "qemu.log").read_text(encoding="utf-8", errors="replace")
            if "host forwarding rule" not in log or attempt == _BOOT_TRIES - 1:
                break
            self._qemu.stop()
        ending = f"was not up after {self._boot_timeout_s:.0f} s" if self.is_running else "ended while it booted"
        raise DeviceError(
            f"the {self.spec.cpu} machine {ending}\n{self.console_tail()}",
            hint=f"the whole console: {self._folder.parent / 'last-console.log'}",
            code="MKD-511",
        )

    def _wait(self) -> bool:
        deadline = time.monotonic() + self._boot_timeout_s
        while time.monotonic() < deadline and self.is_running:
            text = self.console.read_text(encoding="utf-8", errors="replace") if self.console.is_file() else ""
            text = text.replace("\r", "")
            host_key = _HOST_KEY.search(text)
            if host_key and _READY.search(text):
                self.known_hosts.write_text(f"[127.0.0.1]:{self.ssh_port} {host_key[1]}\n", encoding="utf-8")
                return True
            time.sleep(_POLL_S)
        return False

    def _argv(self) -> list[str]:
        spec = self.spec
        forwards = f"hostfwd=tcp:127.0.0.1:{self.adb_port}-:5555,hostfwd=tcp:127.0.0.1:{self.ssh_port}-:22"
        # With sleep=off an idle guest's clock runs ahead, and sshd's time-outs with it; the counts are the same.
        counting = ["-icount", "shift=0,sleep=on"] if spec.is_counting else []
        words = [
            *("-machine", "virt", "-cpu", spec.cpu, "-smp", str(spec.cores), "-m", f"{spec.memory_mib}M"),
            *("-nodefaults", "-display", "none", "-no-reboot", *counting),
            *("-serial", f"file:{self.console}"),
            *("-kernel", str(self._guest.kernel), "-initrd", str(self._folder / "initramfs")),
            *("-append", f"console=ttyAMA0 loglevel=4 panic=-1 mobilekd.data={spec.memory_mib // 2}m"),
            *("-netdev", f"user,id=n0,restrict=on,{forwards}"),
            # Without romfile= qemu looks for a PXE image, which Debian packs apart.
            *("-device", "virtio-net-pci,netdev=n0,romfile="),
            *("-device", "virtio-rng-pci"),
        ]
        return [_QEMU, *words]


def qemu_version() -> str:
    """Return the version of qemu-system-aarch64, as "7.2.22"; empty where it does not tell."""
    done = subprocess.run([_QEMU, "--version"], capture_output=True, text=True, check=False)
    match = re.search(r"version (\d+(?:\.\d+)+)", done.stdout)
    return match[1] if match else ""


def free_ports(count: int) -> tuple[int, ...]:
    """Return TCP ports of 127.0.0.1 that are free now; another process may take one before it is used."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return tuple(one.getsockname()[1] for one in sockets)
    finally:
        for one in sockets:
            one.close()


def _remove_stale(boots: Path) -> None:
    """Remove what boots of processes that are gone left: keys, and archives of some ten MB."""
    for folder in boots.iterdir():
        pid = folder.name.partition("-")[0]
        if folder.is_dir() and pid.isdigit() and not is_alive(int(pid)):
            shutil.rmtree(folder, ignore_errors=True)


def is_alive(pid: int) -> bool:
    """Return whether a process of this machine is there."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
