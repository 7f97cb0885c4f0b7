"""A bundle built again elsewhere: another folder, process, hash seed, time zone, language, umask, place of the data."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mobilekd.artifacts import canonical_json, digest_file
from mobilekd.cache import Cache
from mobilekd.release.manifest import file_entries, manifest_text, parse_manifest, parse_measurements, sealed

pytestmark = pytest.mark.slow

USERS_CACHE = str(Cache.default_root())
"""Runtimes for devices are downloaded there once; the stages have a cache of the tests' own."""

PROFILE = """
name = "small"
title = "ONNX Runtime only"
[target]
os = "linux"
abi = "x86_64"
[[deploy]]
backend = "onnxruntime"
[device]
place = "host"
images = 4
[benchmark]
timed_runs = 10
warmup_runs = 1
baseline = "none"
[tolerance]  # two epochs leave thin margins
top1_drop = 0.5
agreement = 0.5
"""
NETWORKS = """
from torch import nn

def small(num_classes, width=8):
    layers = [nn.Conv2d(3, width, 3, stride=2, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    layers += [nn.Conv2d(width, width, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(width, num_classes))

def large(num_classes):
    return small(num_classes, 16)
"""
PIPELINE = """
name = "mine"
seed = 3
stages = ["data", "teacher", "distill", "quantize", "export", "simplify", "convert", "verify", "benchmark", "bundle"]
[data]
source = "imagefolder"
image_size = 16
calibration_images = 8
[teacher]
network = "python:nets:large"
epochs = 1
threads = 1
[distill]
network = "python:nets:small"
epochs = 2
threads = 1
[quantize]
epochs = 1
threads = 1
calibration_images = 88
"""
HERE = {"PYTHONHASHSEED": "1", "TZ": "UTC", "LANG": "C", "OMP_NUM_THREADS": "1"}
ELSEWHERE = {
    "PYTHONHASHSEED": "271828",
    "TZ": "Asia/Kathmandu",
    "LANG": "de_DE.UTF-8",
    "LC_ALL": "C.UTF-8",
    "OMP_NUM_THREADS": "3",
}


def run(folder: Path, *words: str, env: dict[str, str], umask: int = 0o022) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "mobilekd", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        umask=umask,
        env={**os.environ, "MOBILEKD_CACHE": USERS_CACHE, **env},
    )


def write_images(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for split, count in (("train", 48), ("val", 12)):
        for label in ("bright", "dark"):
            (folder / split / label).mkdir(parents=True)
            for index in range(count):
                pixels = rng.integers(0, 120, (18, 20, 3), dtype=np.uint8) + (135 if label == "bright" else 0)
                Image.fromarray(pixels.astype(np.uint8)).save(folder / split / label / f"{index}.png")


@pytest.fixture(scope="module")
def first(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("first")
    (folder / "small.toml").write_text(PROFILE)
    (folder / "mine.toml").write_text(PIPELINE)
    (folder / "nets.py").write_text(NETWORKS)
    write_images(folder / "images")
    words = ("build", "--profile", "small.toml", "--pipeline", "mine.toml", "--data", str(folder / "images"))
    done = run(folder, *words, "--cache", "cache", env=HERE)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def bundle(first: Path) -> Path:
    return first / "dist/mine-small.mobilekd.zip"


def elsewhere(first: Path, folder: Path) -> Path:
    """Return a folder with the user's own files, the images elsewhere in it."""
    shutil.copy(first / "nets.py", folder)
    shutil.copytree(first / "images", folder / "data/pictures", copy_function=shutil.copyfile)
    return folder


def reproduce(folder: Path, bundle: Path, *more: str) -> "subprocess.CompletedProcess[str]":
    words = ("bundle", "reproduce", str(bundle), "--data", "data/pictures", "--json", *more)
    return run(folder, *words, env=ELSEWHERE, umask=0o077)


def test_a_bundle_comes_out_the_same_elsewhere(first, bundle, tmp_path) -> None:
    done = reproduce(elsewhere(first, tmp_path), bundle, "--keep", "again")
    found = json.loads(done.stdout)
    assert (done.returncode, found["same"], found["first_file"], found["reused"]) == (0, True, "", []), done.stderr
    kept = tmp_path / "again/mine-small/bundle"
    assert digest_file(kept / "manifest.json") == found["digest"]


def test_no_folder_is_named_outside_measurements(first) -> None:
    bundle = first / "dist/mine-small/bundle"
    files = [path for path in bundle.rglob("*") if path.is_file() and path.parent.name != "measurements"]
    assert [path.name for path in files if str(first).encode() in path.read_bytes()] == []


def test_a_forged_model_is_named_with_the_stage_that_made_another(first, tmp_path) -> None:
    forged = shutil.copytree(first / "dist/mine-small/bundle", tmp_path / "forged")
    forge(forged)
    done = reproduce(elsewhere(first, tmp_path), forged, "--cache", str(first / "cache"))
    assert done.returncode == 7
    found = json.loads(done.stdout)
    assert (found["first_file"], found["first_stage"]) == (
        "models/onnxruntime-int8.onnx",
        "convert:onnxruntime-int8",
    )
    assert "models/onnxruntime-int8.onnx is different" in done.stderr


def forge(bundle: Path) -> None:
    """Change a model and what is recorded of it, so that every digest holds."""
    model = bundle / "models/onnxruntime-int8.onnx"
    model.write_bytes(model.read_bytes() + b"\0")
    provenance = json.loads((bundle / "provenance.json").read_text())
    made = {one["name"]: one["digest"] for one in provenance["runDetails"]["byproducts"]}
    made["convert:onnxruntime-int8"]["sha256"] = "0" * 64
    (bundle / "provenance.json").write_text(canonical_json(provenance))
    manifest = parse_manifest((bundle / "manifest.json").read_bytes(), "")
    files = file_entries(bundle, [entry.path for entry in manifest.files])
    (bundle / "manifest.json").write_text(manifest_text(manifest.model_copy(update={"files": files})))
    measured = bundle / "measurements/manifest.json"
    measurements = parse_measurements(measured.read_bytes(), "")
    digest = digest_file(bundle / "manifest.json")
    measured.write_text(manifest_text(sealed(measurements.model_copy(update={"bundle": digest}))))


def test_other_images_are_refused_before_anything_is_built(first, bundle, tmp_path) -> None:
    folder = elsewhere(first, tmp_path)
    (folder / "data/pictures/train/dark/0.png").unlink()
    done = reproduce(folder, bundle)
    assert (done.returncode, done.stdout) == (2, "")
    assert "data: path is not that of the bundle" in done.stderr


def test_images_that_are_not_given_are_asked_for(first, bundle, tmp_path) -> None:
    done = run(elsewhere(first, tmp_path), "bundle", "reproduce", str(bundle), env=ELSEWHERE)
    assert done.returncode == 2
    assert "give the data with --data DIR" in done.stderr
