"""One booted virtual machine for all tests here, reached by real adb and by real ssh."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from mobilekd.cache import Cache
from mobilekd.device import guest
from mobilekd.device.machine import Machine, MachineSpec
from mobilekd.errors import MissingToolError
from mobilekd.transport import Patience
from mobilekd.transports._remote import Remote
from mobilekd.transports.vm import AdbServer, adb_to, ssh_to
from tests.device.tools import need

Reach = Callable[..., Remote]
HARDLY = Patience(limit_s=0.1)


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


@pytest.fixture(scope="session", params=["adb", "ssh"])
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="session")
def make(kind: str, machine: Machine, adb_port: int) -> Reach:
    """Make a transport of this kind to the machine, for a state folder of ours and a folder of the machine."""
    if kind == "adb":
        return partial(adb_to, machine, server_port=adb_port)
    return partial(ssh_to, machine)


@pytest.fixture(scope="session")
def device(kind: str, make: Reach, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Remote]:
    """One use of the machine, shared by the tests that only run, push and pull."""
    with make(tmp_path_factory.mktemp("state"), folder=f"/data/local/tmp/shared-{kind}") as taken:
        yield taken


@pytest.fixture
def reach(kind: str, make: Reach, tmp_path: Path) -> Reach:
    """Make a transport that nobody else uses, which hardly waits for one who does."""
    return lambda folder=f"/data/local/tmp/own-{kind}", patience=HARDLY: make(
        tmp_path, folder=folder, patience=patience
    )


@pytest.fixture(autouse=True)
def _no_chosen_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANDROID_SERIAL", raising=False)
