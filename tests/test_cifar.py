"""A published network on its own data: int8 without training, on every backend that runs here."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.conformance import read_rows
from mobilekd import config
from mobilekd import pipeline as pipelines
from mobilekd.pipeline import Workshop

DATA = Path(os.environ.get("MOBILEKD_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
PROFILE = """
name = "every"
title = "Every backend that runs on a host"
[target]
os = "linux"
abi = "x86_64"
[[deploy]]
backend = "onnxruntime"
[[deploy]]
backend = "tflite"
[[deploy]]
backend = "mnn"
"""


@pytest.mark.slow
@pytest.mark.skipif(not (DATA / "unpack.py").is_file(), reason="MOBILEKD_TEST_DATA has no CIFAR-10 and no checkpoints")
def test_a_published_resnet_keeps_its_answers_in_int8_on_every_backend(tmp_path, workshop: Workshop) -> None:
    subprocess.run([sys.executable, DATA / "unpack.py", "cifar10", tmp_path, "--limit", "5000"], check=True)
    (tmp_path / "every.toml").write_text(PROFILE, encoding="utf-8")
    checkpoint = DATA / "cifar10_resnet" / "resnet20-12fca82f.th"
    settings = [f"data.path={tmp_path / 'cifar10.npz'}", "data.normalization=imagenet", "quantize.epochs=0"]
    for stage in ("teacher", "distill"):
        settings += [f"{stage}.network=python:benchmarks.cifar_resnet:resnet20", f"{stage}.epochs=0"]
        settings += [f"{stage}.checkpoint={checkpoint}", f"{stage}.threads=1"]
    overrides = [config.parse_override(one) for one in settings]
    profile = config.load_profile(str(tmp_path / "every.toml"), overrides)
    result = pipelines.build(config.load_pipeline("cifar10", overrides), profile, workshop, until="verify")
    rows = [row for row in read_rows("resnet20", "ResNet", "cifar10", result) if "kernels" not in row["backend"]]
    assert [row["backend"] for row in rows] == ["onnxruntime", "tflite", "mnn"]
    assert min(row["top1_deployed"] for row in rows) > rows[0]["top1_fp32"] - 0.01 > 0.9
    assert min(row["agreement"] for row in rows) >= 0.995
    assert [(row["float_ops"], row["max_error_steps"] <= 3) for row in rows] == [(0, True)] * 3
