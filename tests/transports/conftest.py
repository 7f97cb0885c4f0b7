"""One booted virtual machine for all tests here, reached by real adb and by real ssh."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mobilekd.cache import Cache
from mobilekd.device import guest
from mobilekd.device.machine import Machine, MachineSpec
from mobilekd.errors import MissingToolError
from mobilekd.transports._remote import Remote
from mobilekd.transports.vm import AdbServer, adb_to, ssh_to
from tests.device.tools import need

Reach = Callable[..., Remote]


@pytest.fixture(scope="session")
def emulators() -> Path:
    """The user's own folder of emulators: the machine's parts are made there once, not once a test."""
    need("qemu-system-aarch64", "adb", "ssh", "ssh-keygen", "apt-get")
    state = Cache.default_root() / "devices"
    try:
        guest.prepare(state, lambda _: None)
    except MissingToolError as error:
        pytest.skip(error.message)
    return state


@pytest.fixture(scope="session")
def machine(emulators: Path) -> Iterator[Machine]:
    with Machine(guest.prepare(emulators, print), MachineSpec(memory_mib=512), emulators) as booted:
        yield booted


@pytest.fixture(scope="session")
def adb_port(emulators: Path) -> Iterator[int]:
    with AdbServer(emulators) as server:
        yield server.port


@pytest.fixture(params=["adb", "ssh"])
def reach(request: pytest.FixtureRequest, machine: Machine, adb_port: int, tmp_path: Path) -> Reach:
    """Make a transport to the machine; `folder` and `state` may be chosen."""

    def make(folder: str = f"/data/local/tmp/mobilekd-{request.param}", state: Path = tmp_path) -> Remote:
        if request.param == "adb":
            return adb_to(machine, state, server_port=adb_port, folder=folder)
        return ssh_to(machine, state, folder=folder)

    return make


@pytest.fixture
def device(reach: Reach) -> Iterator[Remote]:
    with reach() as taken:
        yield taken


@pytest.fixture(autouse=True)
def _no_chosen_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANDROID_SERIAL", raising=False)
    assert "ANDROID_SERIAL" not in os.environ
