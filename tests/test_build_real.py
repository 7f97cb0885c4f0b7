"""Whole builds with real stages and runtimes, small enough for the suite: little training, one backend."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mobilekd.cache import Cache
from tests.device.tools import need

pytestmark = pytest.mark.slow

USERS_CACHE = str(Cache.default_root())
"""Runtimes for devices are downloaded there once; the stages have a cache of the tests' own."""

PROFILE = """
name = "small"
title = "ONNX Runtime only"
[target]
os = "android"
abi = "arm64-v8a"
[[deploy]]
backend = "onnxruntime"
[device]  # no transport: the emulator where it is installed, else this host
cpu = "cortex-a76"
images = 20
[benchmark]
timed_runs = 10
[tolerance]  # three epochs leave thin margins: parity itself is proved by the default build
top1_drop = 0.2
agreement = 0.7
"""
SMALL = (
    "data.image_size=16", "teacher.network=timm:resnet10t", "teacher.epochs=1",
    "distill.network=timm:mobilenetv4_conv_small_050", "distill.epochs=2", "quantize.epochs=1",
    "teacher.threads=1", "distill.threads=1", "quantize.threads=1",
)  # fmt: skip


def command(folder: Path, *more: str) -> list[str]:
    (folder / "small.toml").write_text(PROFILE)
    options = [part for value in SMALL for part in ("--set", value)]
    paths = ["--profile", "small.toml", "--cache", "cache", "--out", "dist"]
    return [sys.executable, "-m", "mobilekd", "build", "--json", *paths, *options, *more]


def build(folder: Path, *more: str, code: int = 0) -> dict:
    env = {**os.environ, "MOBILEKD_CACHE": USERS_CACHE}
    done = subprocess.run(command(folder, *more), cwd=folder, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("build")


@pytest.fixture(scope="module")
def first(folder) -> dict:
    return build(folder)


def test_a_build_says_what_it_did(first, folder) -> None:
    assert [stage["cached"] for stage in first["stages"]] == [False] * 11
    row = next(row for row in first["parity"] if row["precision"] == "int8")
    assert (row["backend"], row["status"], row["float_ops"]) == ("onnxruntime", "passed", 0)
    assert {row["on_target"] for row in first["latency"]} == {False}
    assert (folder / first["report"]).is_file()


def test_a_build_counts_and_compares_on_the_emulator(first) -> None:
    need("qemu-aarch64", "aarch64-linux-gnu-gcc")
    rows = {row["precision"]: row for row in first["latency"]}
    assert {row["ran_on"] for row in rows.values()} == {"emulated cortex-a76"}
    totals = {precision: row["guest_instructions"]["total"] for precision, row in rows.items()}
    assert rows["int8"]["int8_speedup"] == totals["fp32"] / totals["int8"] > 1
    assert rows["int8"]["on_device"]["images"] == 20
    assert rows["int8"]["on_device"]["same_answers"] >= 0.7 * 20  # tolerance.agreement, or the build had failed
    assert {row.get("p50_ms") for row in rows.values()} == {None}


def test_an_emulated_cpu_answers_to_the_bit(first) -> None:
    need("qemu-aarch64", "aarch64-linux-gnu-gcc")
    found = next(row["on_device"] for row in first["latency"] if row["precision"] == "int8")
    assert (found["exact_images"], found["max_steps"]) == (20, 0)
    assert found["trained"]["exact_images"] == found["trained"]["host_exact_images"]


def test_another_number_of_images_measures_again_and_packs_again(first, folder) -> None:
    changed = build(folder, "--set", "profile.device.images=10")
    assert [stage["name"] for stage in changed["stages"] if not stage["cached"]] == ["benchmark", "bundle"]
    assert changed["digest"] == first["digest"]


def test_nothing_changed_is_all_hits(first, folder) -> None:
    again = build(folder)
    assert all(stage["cached"] for stage in again["stages"])
    assert again["digest"] == first["digest"]


def test_an_option_of_qat_reruns_it_and_what_follows(first, folder) -> None:
    changed = build(folder, "--set", "quantize.learning_rate=2e-4")
    ran = [stage["name"] for stage in changed["stages"] if not stage["cached"]]
    assert ran == [stage["name"] for stage in first["stages"]][3:]
    assert ran[0] == "quantize"


def test_a_broken_budget_is_exit_code_6_with_the_bundle_there(first, folder) -> None:
    over = build(folder, "--set", "profile.budget.model_bytes=1000", code=6)
    assert "budget.model_bytes" in over["over_budget"][0]
    assert (folder / over["bundle"]).is_file()


def test_the_bundle_verifies_and_its_pair_runs(first, folder) -> None:
    bundle = build(folder)["bundle"]  # other tests put other bundles in its place
    argv = [sys.executable, "-m", "mobilekd", "bundle", "verify", bundle]
    done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert first["digest"] in done.stdout


def test_a_build_killed_again_and_again_gives_the_same_bundle(first, tmp_path) -> None:
    for wait_s in (3.0, 6.0, 9.0):
        process = subprocess.Popen(
            command(tmp_path),
            cwd=tmp_path,
            env={**os.environ, "MOBILEKD_CACHE": USERS_CACHE},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        time.sleep(wait_s)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert build(tmp_path)["digest"] == first["digest"]
