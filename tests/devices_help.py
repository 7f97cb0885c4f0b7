"""What the tests of `mobilekd devices` share: profiles of one backend, and an adb server that nobody else uses."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from mobilekd import config
from mobilekd.profile import Profile
from mobilekd.transports.vm import AdbServer

TOOLS = ("qemu-aarch64", "aarch64-linux-gnu-gcc", "cc")


def lean(name: str = "android-arm64", **device: str) -> Profile:
    """Return a shipped profile with one backend, so that one wheel is downloaded, and other words of [device]."""
    found = config.load_profile(name)
    settings = found.device.model_copy(update=device)
    return found.model_copy(update={"deploy": found.deploy[:1], "device": settings})


def own_adb_server(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Iterator[None]:
    """Let adb use a server of its own, without devices, for one test."""
    monkeypatch.delenv("ANDROID_SERIAL", raising=False)
    if shutil.which("adb") is None:
        yield
        return
    with AdbServer(folder) as server:
        monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(server.port))
        yield
