"""What is adb's own: choosing a device, and its faults, against a real adb server."""

import pytest

from mobilekd.errors import DeviceError, MissingToolError
from mobilekd.transports.adb import Adb
from mobilekd.transports.vm import AdbServer


def open_adb(state, port, serial=None):
    return Adb(serial, state=state, server_port=port, connect_timeout_s=0.5).__enter__()


@pytest.fixture
def empty_port(emulators):
    with AdbServer(emulators) as server:
        yield server.port


def test_no_device_is_told(empty_port, tmp_path):
    with pytest.raises(DeviceError, match="no adb device is attached"):
        open_adb(tmp_path, empty_port)


def test_a_wrong_serial_is_named(empty_port, tmp_path):
    with pytest.raises(DeviceError, match="adb device NOSUCH is not attached; attached: none"):
        open_adb(tmp_path, empty_port, "NOSUCH")


def test_the_serial_of_the_environment_is_used(empty_port, tmp_path, monkeypatch):
    monkeypatch.setenv("ANDROID_SERIAL", "FROMENV")
    with pytest.raises(DeviceError, match="FROMENV is not attached"):
        open_adb(tmp_path, empty_port)


def test_a_refused_port_is_told(empty_port, tmp_path):
    with pytest.raises(DeviceError, match=r"127\.0\.0\.1:9 can't be reached: .*[Rr]efused"):
        open_adb(tmp_path, empty_port, "127.0.0.1:9")


def test_of_several_devices_one_must_be_chosen(empty_port, machine, tmp_path):
    serials = (f"127.0.0.1:{machine.adb_port}", f"localhost:{machine.adb_port}")
    adb = Adb(state=tmp_path, server_port=empty_port)
    for serial in serials:
        adb._adb("connect", serial)
    with pytest.raises(DeviceError, match="2 adb devices are attached and none is chosen") as caught:
        adb.__enter__()
    assert all(serial in caught.value.message for serial in serials)


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ("unauthorized", "does not trust this host yet"),
        ("offline", "is offline"),
        ("no permissions (missing udev rules? user is in the plugdev group); see [a page]", "can't be opened by this"),
        ("strange", "is in state 'strange'"),
    ],
)
def test_a_device_that_is_not_ready_says_why(tmp_path, monkeypatch, state, said):
    # No emulator gets into these states, so what adb prints of them is played back.
    fake = tmp_path / "adb"
    fake.write_text(f"#!/bin/sh\nprintf '%s\\n' 'List of devices attached' '0123\t{state}'\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DeviceError, match=f"adb device 0123 {said}"):
        open_adb(tmp_path, None, "0123")


def test_without_adb_the_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingToolError, match="adb is not on PATH"):
        Adb("x", state=tmp_path).__enter__()
