import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilekd import devices
from mobilekd.cache import Cache
from mobilekd.device import building, guest
from mobilekd.device.machine import Machine, MachineSpec
from mobilekd.device_doctor import aim_of, examine
from mobilekd.device_setup import setup
from mobilekd.device_tools import remedy
from mobilekd.doctor import Check
from mobilekd.errors import ConfigError, DeviceError, MissingToolError, StageError
from mobilekd.setup_steps import Step
from mobilekd.transports.adb import said_of
from mobilekd.transports.vm import AdbServer, adb_to
from tests.device.tools import need
from tests.devices_help import TOOLS, lean, own_adb_server
from tests.toys import Silent

_DEVICES = Cache.default_root() / "devices"
"""The user's own folder: the virtual machine is made there once, not once a test."""

SHELL = shutil.which("sh") or "sh"


@pytest.fixture(autouse=True)
def _own_adb_server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    yield from own_adb_server(monkeypatch, tmp_path / "adb")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tuple[Step, ...]]:
    """A state folder that was empty before, and the steps that filled it."""
    need(*TOOLS)
    state = tmp_path_factory.mktemp("home") / "devices"
    try:
        return state, setup(lean(), state, Silent(), with_machine=False)
    except MissingToolError as lack:
        pytest.skip(f"{lack.message} ({lack.hint})")


def test_setup_makes_every_part_in_an_empty_folder(prepared: tuple[Path, tuple[Step, ...]]) -> None:
    _, steps = prepared
    assert [(step.name.partition(":")[0], step.state) for step in steps] == [
        ("runner", "made"),
        ("plug-in that counts", "made"),
        ("tflite", "made"),
        ("CPU cortex-a76", "made"),
        ("check", "checked"),
    ]


def test_setup_starts_the_runner_and_loads_the_runtime_on_the_emulated_cpu(
    prepared: tuple[Path, tuple[Step, ...]],
) -> None:
    assert prepared[1][-1].detail.startswith("mkdrun loads tflite on emulated cortex-a76")


def test_setup_makes_nothing_twice(prepared: tuple[Path, tuple[Step, ...]]) -> None:
    state, _ = prepared
    before = _times(state)
    steps = setup(lean(), state, Silent(), with_machine=False)
    assert [step.state for step in steps] == ["was there"] * 4 + ["checked"]
    assert _times(state) == before


def test_setup_needs_no_package_index_where_the_runtimes_are_there(
    prepared: tuple[Path, tuple[Step, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    _without_index(monkeypatch)
    steps = setup(lean(cpu="cortex-a53"), prepared[0], Silent(), with_machine=False)
    assert steps[-1].detail.startswith("mkdrun loads tflite on emulated cortex-a53")


def test_setup_tells_each_step_with_its_time(prepared: tuple[Path, tuple[Step, ...]], watcher: Silent) -> None:
    lines: list[str] = []
    watcher.say = lines.append  # type: ignore[method-assign]
    steps = setup(lean(), prepared[0], watcher, with_machine=False)
    assert [line.partition(": was")[0].partition(": checked")[0] for line in lines] == [step.name for step in steps]
    assert all(line.endswith(" s") for line in lines)


def test_setup_says_so_when_the_runner_does_not_start(prepared: tuple[Path, tuple[Step, ...]], tmp_path: Path) -> None:
    state = tmp_path / "devices"
    shutil.copytree(prepared[0], state, symlinks=True)
    runner = building.find_runner("aarch64", state)
    assert runner is not None
    runner.write_bytes(b"no program")
    with pytest.raises(DeviceError, match="mkdrun does not start on the emulated CPU"):
        setup(lean(), state, Silent(), with_machine=False)


def test_setup_says_so_when_a_runtime_does_not_load(prepared: tuple[Path, tuple[Step, ...]], tmp_path: Path) -> None:
    state = tmp_path / "devices"
    shutil.copytree(prepared[0], state, symlinks=True)
    (library,) = state.rglob("runtimes/*/ai_edge_litert/libLiteRt.so")
    library.write_bytes(b"no library")
    with pytest.raises(DeviceError, match=r"can't load the runtime of tflite .* exit code 3, .*libLiteRt.so"):
        setup(lean(), state, Silent(), with_machine=False)


def test_setup_without_a_package_index_names_the_runtime_and_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need(*TOOLS)
    _without_index(monkeypatch)
    with pytest.raises(MissingToolError, match=r"ai-edge-litert 2\.3\.0 for aarch64 could not be downloaded") as raised:
        setup(lean(), tmp_path, Silent(), with_machine=False)
    assert "pip download" in raised.value.hint


def test_setup_in_a_folder_that_cannot_be_made_is_a_mistake_of_the_user(tmp_path: Path) -> None:
    need(*TOOLS)
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="can't be written") as raised:
        setup(lean(), tmp_path / "file" / "devices", Silent(), with_machine=False)
    assert str(tmp_path / "file") in raised.value.message
    assert "MOBILEKD_CACHE" in raised.value.hint


@pytest.mark.parametrize("size", ["40k", "3m"], ids=["at the runner", "at the wheel"])
def test_setup_on_a_full_disk_says_so(size: str, tmp_path: Path) -> None:
    need(*TOOLS, "unshare")
    if subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode:
        pytest.skip("this system gives no user namespace")
    script = """
import sys
from pathlib import Path
from mobilekd.device_setup import setup
from mobilekd.errors import MobilekdError
from tests.devices_help import lean
from tests.toys import Silent
try:
    setup(lean(), Path(sys.argv[1]) / "devices", Silent(), with_machine=False)
except MobilekdError as error:
    print(type(error).__name__, error.message)
"""
    mounted = f'mount -t tmpfs -o size={size} none {tmp_path} && exec {sys.executable} -c "$1" {tmp_path}'
    argv = ["unshare", "-rm", SHELL, "-c", mounted, SHELL, script]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.stdout.startswith(f"{StageError.__name__} no space is left ("), done.stdout + done.stderr


def test_setup_refuses_a_profile_without_a_runtime_for_devices(tmp_path: Path) -> None:
    profile = lean("jetson-orin")
    with pytest.raises(ConfigError, match="no backend with a runtime for devices: tensorrt"):
        setup(profile, tmp_path, Silent(), with_machine=False)


def test_setup_refuses_a_profile_that_names_no_cpu(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="names no CPU to emulate") as raised:
        setup(lean(cpu=""), tmp_path, Silent(), with_machine=False)
    assert "cortex-a76" in raised.value.hint


def test_a_profile_in_trouble_leaves_the_others_in_the_list() -> None:
    need("ssh")
    survey = devices.survey([lean("rpi5", host="nowhere.invalid"), lean("host")])
    board, host = survey.outlooks
    assert board.place is None
    assert "ssh host nowhere.invalid" in board.trouble
    assert host.place is not None
    assert [(one.transport, one.name) for one in survey.reached] == [("ssh", "nowhere.invalid")]


def test_a_board_that_does_not_answer_is_asked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ssh").write_text(f"#!{SHELL}\necho asked >> {tmp_path}/asked\nexit 255\n")
    (tmp_path / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    devices.survey([lean("rpi5", host="board", place="device")])
    once = len((tmp_path / "asked").read_text().split())
    devices.outlook(lean("rpi5", host="board", place="device"))
    assert len((tmp_path / "asked").read_text().split()) == 2 * once


def test_the_numbers_of_an_emulator_are_instructions_and_those_of_the_host_wall_time() -> None:
    need(*TOOLS)
    emulated, host = (devices.outlook(lean(place=place)) for place in ("emulator", "host"))
    assert (emulated.latency_kind, host.latency_kind) == ("guest_instructions", "wall")


def test_phones_that_were_not_looked_for_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    survey = devices.survey([lean()])
    assert survey.reached == ()
    assert "adb is not on PATH" in survey.notes[0]


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ("unauthorized", "does not trust this host yet"),
        ("no permissions (user in plugdev group); see [http://developer.android.com]", "can't be opened by this user"),
        ("rescue", "is in state 'rescue'"),
    ],
)
def test_a_state_of_adb_is_told_in_words(state: str, said: str) -> None:
    assert said_of(state)[0] == said


def test_devices_over_adb_and_ssh_are_listed_and_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need("qemu-system-aarch64", "adb", "ssh", "ssh-keygen", "apt-get")
    state = _DEVICES
    with AdbServer(state) as server, Machine(_guest(state), MachineSpec(memory_mib=512), state) as machine:
        monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(server.port))
        _ssh_knows("board", machine, tmp_path, monkeypatch)
        with adb_to(machine, tmp_path, server_port=server.port):
            survey = devices.survey([lean(), lean("rpi5", host="board")])
    assert [(one.transport, one.name, one.state) for one in survey.reached] == [
        ("adb", f"127.0.0.1:{machine.adb_port}", devices.READY),
        ("ssh", "board", devices.READY),
    ]
    assert [(one.place.kind, one.latency_kind) for one in survey.outlooks if one.place] == [("device", "wall")] * 2


@pytest.mark.parametrize(
    ("name", "words", "kind", "machine"),
    [
        ("android-arm64", {}, "emulator", "aarch64"),
        ("android-arm64", {"place": "device"}, "device", "aarch64"),
        ("android-arm64", {"place": "host"}, "host", "x86_64"),
        ("host", {}, "host", "x86_64"),
    ],
)
def test_the_doctor_aims_at_what_the_profile_asks_for(
    name: str, words: dict[str, str], kind: str, machine: str
) -> None:
    aim = aim_of(lean(name, **words))
    assert (aim.kind, aim.machine) == (kind, machine)


def test_the_doctor_needs_no_virtual_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    needed = {one.name for one in examine(lean(), tmp_path) if one.is_needed and not one.is_ok}
    assert {"qemu-aarch64", "plug-ins of qemu-aarch64", "C compiler"} <= needed
    assert not {"adb", "ssh", "qemu-system-aarch64", "apt-get", "attached"} & needed


def test_the_doctor_needs_the_client_of_a_device_that_is_demanded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    needed = {one.name for one in examine(lean(place="device"), tmp_path) if one.is_needed and not one.is_ok}
    assert {"adb", "attached"} <= needed
    assert not {"ssh", "qemu-aarch64"} & needed


def test_the_doctor_sees_what_setup_made(prepared: tuple[Path, tuple[Step, ...]]) -> None:
    found = {one.name: one.is_ok for one in examine(lean(), prepared[0])}
    assert found["mkdrun for aarch64"]
    assert found["plug-in that counts"]
    assert found["tflite: ai-edge-litert 2.3.0 for aarch64"]
    assert not found["arm64 machine"]


def test_the_doctor_makes_nothing(tmp_path: Path) -> None:
    examine(lean(), tmp_path / "devices")
    assert not (tmp_path / "devices").exists()


@given(packages=st.lists(st.sets(st.sampled_from(["gcc", "adb", "qemu-user", "libc6-dev"]), min_size=1)))
def test_the_packages_of_all_pieces_are_one_command(packages: list[set[str]]) -> None:
    apt = "apt-get install --yes --no-install-recommends"
    checks = [Check("area", "name", is_ok=False, detail="", mend=f"{apt} {' '.join(one)}") for one in packages]
    wanted = sorted(set().union(*packages))
    assert remedy(checks) == (f"{apt} {' '.join(wanted)}" if wanted else "")


def test_what_no_package_mends_is_told_beside_the_command() -> None:
    checks = [
        Check("a", "pip", is_ok=False, detail="", mend="python -m ensurepip"),
        Check("a", "adb", is_ok=False, detail="", mend="apt-get install --yes --no-install-recommends adb"),
        Check("a", "ssh", is_ok=True, detail="", mend="nothing"),
    ]
    assert remedy(checks) == "apt-get install --yes --no-install-recommends adb; python -m ensurepip"


def _guest(state: Path) -> guest.Guest:
    try:
        return guest.prepare(state, lambda _: None)
    except MissingToolError as lack:
        pytest.skip(lack.message)


def _ssh_knows(name: str, machine: Machine, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give ssh a settings file in which a machine has a name; the user's own can't be another for a test."""
    settings = {
        "Host": name,
        "HostName": "127.0.0.1",
        "Port": machine.ssh_port,
        "User": "root",
        "IdentityFile": machine.key,
        "IdentitiesOnly": "yes",
        "UserKnownHostsFile": machine.known_hosts,
    }
    (folder / "config").write_text("".join(f"{key} {value}\n" for key, value in settings.items()), encoding="utf-8")
    (folder / "bin").mkdir()
    program = folder / "bin" / "ssh"
    program.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {folder / "config"} "$@"\n', encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)


def _times(state: Path) -> dict[Path, int]:
    made = (path for part in ("native", "runtimes", "cpus") for path in (state / part).rglob("*") if path.is_file())
    return {path: path.stat().st_mtime_ns for path in made}


def _without_index(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"INDEX_URL": "http://127.0.0.1:9/", "RETRIES": "0", "NO_CACHE_DIR": "1"}.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
