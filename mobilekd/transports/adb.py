"""An Android device through the official adb client; also any Linux that runs adbd. Android 7 or later."""

import os
import re
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import ClassVar

from mobilekd.errors import DeviceError, MissingToolError
from mobilekd.transport import PATIENT, LatencyKind, Patience
from mobilekd.transports._remote import Remote

_RETRY_S = 0.3
_COMMAND_TIMEOUT_S = 30.0
_NETWORK_SERIAL = re.compile(r"[^\s:]+:\d+")
_SAID_BY_STATE = {
    "unauthorized": ("does not trust this host yet", "unlock its screen and accept the key, then try again"),
    "authorizing": ("has not answered whether it trusts this host", "unlock its screen and accept the key"),
    "offline": ("is offline", "unplug and plug it, or: adb reconnect offline"),
    "no permissions": (
        "can't be opened by this user",
        "add the udev rule of its maker (package android-sdk-platform-tools-common) and plug it again",
    ),
    "recovery": ("is in recovery mode", "adb reboot"),
    "sideload": ("is in sideload mode", "adb reboot"),
    "bootloader": ("is in its bootloader", "fastboot reboot"),
}


class Adb(Remote):
    """One device that adb reaches over USB or TCP."""

    latency_kind: ClassVar[LatencyKind] = "wall"

    def __init__(
        self,
        serial: str | None = None,
        *,
        state: Path,
        folder: str = "/data/local/tmp/mobilekd",
        server_port: int | None = None,
        connect_timeout_s: float = 10.0,
        patience: Patience = PATIENT,
    ) -> None:
        """Name the device; nothing is started yet.

        Args:
            serial: As `adb devices` prints it, or host:port; without it $ANDROID_SERIAL, or the only device there is.
            state: Folder of this host where the lock is kept.
            folder: Folder on the device that its shell user may write.
            server_port: Port of an adb server apart from the user's own.
            connect_timeout_s: How long an offline device or a refused connection is tried again.
            patience: With somebody else who holds it.
        """
        super().__init__(folder=folder, state=state, patience=patience)
        self._serial = serial or os.environ.get("ANDROID_SERIAL", "")
        self._server_port = server_port
        self._connect_timeout_s = connect_timeout_s

    @property
    def label(self) -> str:
        """Return "adb device SERIAL"."""
        return f"adb device {self._serial}" if self._serial else "adb device"

    def _connect(self, held: ExitStack) -> None:  # noqa: ARG002  nothing is left behind: the server is the user's own
        self.wait_until_ready()

    def wait_until_ready(self) -> None:
        """Accept a device that adb can use now; one at host:port is connected to.

        Raises:
            MissingToolError: adb is not installed.
            DeviceError: It is not attached, can't be reached, or does not let this host in; its state is named.
        """
        need_adb()
        deadline = time.monotonic() + self._connect_timeout_s
        while True:
            trouble = self._try()
            if trouble is None:
                return
            # Being offline, or refusing a connection, passes; a missing key or permission does not.
            if time.monotonic() > deadline or not _is_transient(trouble):
                raise trouble
            time.sleep(_RETRY_S)

    def _try(self) -> DeviceError | None:
        """Return what keeps us from the device; None when it is there."""
        devices = self._devices()
        if self._serial not in devices and _NETWORK_SERIAL.fullmatch(self._serial):
            answer = self._adb("connect", self._serial)
            if "connected to" not in answer:
                self._adb("disconnect", self._serial)  # the server would list it as offline from now on
                return DeviceError(
                    f"{self.label} can't be reached: {answer or 'adb connect said nothing'}",
                    hint=f"see that the device listens: adb connect {self._serial}",
                    code="MKD-509",
                )
            devices = self._devices()
        if not self._serial:
            self._serial = _only(devices)
        if self._serial not in devices:
            return DeviceError(
                f"{self.label} is not attached; attached: {_listed(devices)}", hint="adb devices", code="MKD-502"
            )
        state = devices[self._serial]
        if state == "device":
            return None
        said, hint = said_of(state)
        return DeviceError(f"{self.label} {said}", hint=hint, code="MKD-503")

    def _devices(self) -> dict[str, str]:
        return _parsed(self._adb("devices"))

    def _adb(self, *words: str) -> str:
        return run_adb(words, self._env())

    def _after_kill(self) -> None:
        """Do nothing: adb's server closes what a killed client had open."""

    def _client(self, command: str) -> list[str]:
        return ["adb", "-s", self._serial, "shell", command]

    def _send(self, local: Path, remote: str, timeout_s: float) -> str:
        argv = ["adb", "-s", self._serial, "push", str(local.resolve()), remote]
        try:
            done = subprocess.run(
                argv, stdin=subprocess.DEVNULL, capture_output=True, env=self._env(), timeout=timeout_s, check=False
            )
        except subprocess.TimeoutExpired as cause:
            raise DeviceError(
                f"{local} was not copied to {self.label} within {timeout_s:.0f} s", code="MKD-504"
            ) from cause
        said = (done.stderr + done.stdout).decode(errors="replace").strip()
        return (said or f"adb push ended with {done.returncode}") if done.returncode else ""

    def _lost(self, complaint: str, doing: str) -> DeviceError:
        return DeviceError(
            f"{self.label} went away while {doing}" + (f" ({complaint})" if complaint else ""),
            hint="adb devices shows whether it is back; then start again",
            code="MKD-506",
        )

    def _remedy(self, command: str) -> str:
        return f"adb -s {self._serial} shell {command}"

    def _env(self) -> dict[str, str]:
        env = {name: value for name, value in os.environ.items() if name != "ANDROID_SERIAL"}
        return env if self._server_port is None else private_server_env(env, self._server_port)


def attached() -> dict[str, str]:
    """Return the state of every device that adb knows, by serial, as {"0123": "device"}.

    Raises:
        MissingToolError: adb is not installed.
        DeviceError: adb gives no answer.
    """
    need_adb()
    return _parsed(run_adb(("devices",), os.environ))


def said_of(state: str) -> tuple[str, str]:
    """Return what a state of `adb devices` other than "device" means, as "is offline", and what mends it."""
    known = next((name for name in _SAID_BY_STATE if state.startswith(name)), "")
    return _SAID_BY_STATE.get(known, (f"is in state {state!r}", "adb devices"))


def need_adb() -> None:
    """Accept a host that has adb.

    Raises:
        MissingToolError: It does not.
    """
    if shutil.which("adb") is None:
        raise MissingToolError(
            "adb is not on PATH", hint="apt-get install adb, or Android's platform-tools", code="MKD-301"
        )


def run_adb(words: Sequence[str], env: Mapping[str, str], timeout_s: float = _COMMAND_TIMEOUT_S) -> str:
    """Return what an adb command printed.

    Raises:
        DeviceError: It gave no answer, or its server does not start.
    """
    try:
        done = subprocess.run(
            ["adb", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=env,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired as cause:
        raise DeviceError(
            f"adb {words[0]} gave no answer within {timeout_s:.0f} s",
            hint="adb kill-server, then try again",
            code="MKD-504",
        ) from cause
    text = done.stdout.decode(errors="replace").strip()
    if "cannot connect to daemon" in text or "failed to start daemon" in text:
        raise DeviceError(
            f"adb can't start its server: {text}", hint="adb kill-server, then adb start-server", code="MKD-504"
        )
    return text


def _parsed(listing: str) -> dict[str, str]:
    lines = [line.split(None, 1) for line in listing.splitlines() if not line.startswith(("*", "List"))]
    return {words[0]: words[1].strip() for words in lines if len(words) == 2}


def private_server_env(env: dict[str, str], port: int) -> dict[str, str]:
    """Return the environment for an adb server apart from the user's own.

    It does not look for emulators of others on the ports from 5555 on, and announces nothing.
    """
    mine = {"ANDROID_ADB_SERVER_PORT": str(port), "ADB_LOCAL_TRANSPORT_MAX_PORT": "5553", "ADB_MDNS": "0"}
    kept = {name: value for name, value in env.items() if name != "ADB_SERVER_SOCKET"}
    return kept | mine


def _only(devices: dict[str, str]) -> str:
    if not devices:
        raise DeviceError(
            "no adb device is attached", hint="plug one in with USB debugging on, then: adb devices", code="MKD-501"
        )
    if len(devices) > 1:
        raise DeviceError(
            f"{len(devices)} adb devices are attached and none is chosen: {_listed(devices)}",
            hint=f"choose one: export ANDROID_SERIAL={next(iter(devices))}",
            code="MKD-502",
        )
    return next(iter(devices))


def _listed(devices: dict[str, str]) -> str:
    return ", ".join(f"{serial} ({state})" for serial, state in devices.items()) or "none"


def _is_transient(trouble: DeviceError) -> bool:
    return any(word in trouble.message for word in ("offline", "refused", "reset", "can't be reached"))
