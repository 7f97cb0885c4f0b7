"""What the tests of `mobilekd devices` share: profiles of one backend, and an adb server that nobody else uses."""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator

import pytest

from mobilekd import config
from mobilekd.profile import Profile

TOOLS = ("qemu-aarch64", "aarch64-linux-gnu-gcc", "cc")


def lean(name: str = "android-arm64", **device: str) -> Profile:
    """Return a shipped profile with one backend, so that one wheel is downloaded, and other words of [device]."""
    found = config.load_profile(name)
    settings = found.device.model_copy(update=device)
    return found.model_copy(update={"deploy": found.deploy[:1], "device": settings})


def own_adb_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let adb use a server of its own, without devices, for one test."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    monkeypatch.delenv("ANDROID_SERIAL", raising=False)
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(port))
    monkeypatch.setenv("ADB_LOCAL_TRANSPORT_MAX_PORT", "5553")
    env, adb = dict(os.environ), shutil.which("adb")
    yield
    if adb:
        subprocess.run([adb, "kill-server"], env=env, capture_output=True, timeout=20, check=False)
