"""One workspace for all commands of the docs: images, a built bundle, model files, under the names that pages use."""

import os
import re
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mobilekd import cli
from mobilekd.cache import Cache

from .commands import ROOT
from .tables import QUICK_BUILD

_USERS_CACHE = Cache.default_root()
"""Runtimes for devices are downloaded there once; the stages have a cache of the tests' own."""
_BUNDLE, _OWN = "dist/quickstart-android-arm64.mobilekd.zip", "dist/imagefolder-android-arm64.mobilekd.zip"


@pytest.fixture(scope="session")
def cache_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("docs-cache")
    for name in ("devices", "toolchains"):
        (_USERS_CACHE / name).mkdir(parents=True, exist_ok=True)
        (root / name).symlink_to(_USERS_CACHE / name)
    return root


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory, cache_root: Path) -> Path:
    folder = tmp_path_factory.mktemp("docs")
    _write_photos(folder / "photos")
    _write_tools(folder / "bin")
    (folder / "camera.toml").write_text(_toml_of(ROOT / "docs/profiles.md"))
    with pytest.MonkeyPatch.context() as patch:
        _enter(patch, folder, cache_root)
        _must_run("init", "photos", "--out", "photos.toml")
        _must_run("build", *QUICK_BUILD)
        _must_run("bundle", "keygen", "--no-passphrase", "--out", "release.key")
        _must_run("bundle", "sign", _BUNDLE, "--key", "release.key")
        shutil.copy(folder / _BUNDLE, folder / _OWN)
        _must_run("bundle", "sign", _OWN, "--key", "release.key")
        _must_run("publish", _OWN, "store", "--channel", "stable")
    (folder / "last").mkdir()  # the release before
    for bundle in (_BUNDLE, _OWN):
        shutil.copy(folder / bundle, folder / "last")
    with zipfile.ZipFile(folder / _BUNDLE) as archive:
        (folder / "A.tflite").write_bytes(archive.read("models/tflite-int8.tflite"))
        (folder / "B.tflite").write_bytes(archive.read("models/tflite-int8.tflite"))
    return folder


@pytest.fixture
def workspace(prepared: Path, cache_root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder of a test; the commands find the cache that filled it."""
    _enter(monkeypatch, prepared, cache_root)
    return prepared


def _enter(patch: pytest.MonkeyPatch, folder: Path, cache_root: Path) -> None:
    patch.chdir(folder)
    patch.setenv("MOBILEKD_CACHE", str(cache_root))
    patch.setenv("PYTHONPATH", str(ROOT))  # networks of the tests, in processes of their own too
    patch.setenv("PATH", f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}")


def _must_run(*words: str) -> None:
    assert cli.run(words) == 0, f"mobilekd {' '.join(words)}"


def _write_photos(folder: Path) -> None:
    """Write images of two classes that even a small network tells apart: by their colour."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 40), ("val", 10)):
        for channel, name in enumerate(("cat", "dog")):
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 100, (36, 40, 3), dtype=np.uint8)
                pixels[..., channel] += 120
                Image.fromarray(pixels).save(folder / split / name / f"{number}.jpg")


def _write_tools(folder: Path) -> None:
    """Write a `mobilekd` for commands that a shell has to read."""
    import sys

    folder.mkdir()
    (folder / "mobilekd").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m mobilekd "$@"\n')
    (folder / "mobilekd").chmod(0o755)


def _toml_of(page: Path) -> str:
    found = re.search(r"```toml\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    assert found, f"{page} has no block of TOML"
    return found[1]
