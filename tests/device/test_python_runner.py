"""The runner in Python against mkdrun, on this host: the same outputs, answers, refusals and exit codes."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mobilekd.device import runner
from mobilekd.device.runner import Job
from mobilekd.transports.local import Local
from tests.device.models import SAMPLES
from tests.device.test_mkdrun import LIBRARY, WORD, two  # noqa: F401 - a fixture

on_x86_64 = pytest.mark.skipif(os.uname().machine != "x86_64", reason="needs an x86_64 host")
BACKENDS = ("tflite", "onnxruntime", "mnn")
PROGRAM = runner.python_kit()[runner.PYTHON_PROGRAM]


@pytest.fixture
def call(tmp_path):
    """Give a function that runs the Python runner; it returns (exit code, the JSON of its last line)."""

    def run(backend, *words):
        argv = [sys.executable, str(PROGRAM), "--backend", WORD[backend], *map(str, words)]
        env = {"HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(argv, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
        return done.returncode, json.loads(done.stdout.splitlines()[-1])

    return run


@pytest.fixture
def mkdrun(host_kit, tmp_path):
    """Give the same of mkdrun."""
    for name, file in host_kit.items():
        (tmp_path / name).symlink_to(file)

    def run(backend, *words):
        needs = [f"./{name}" for name in host_kit if name.startswith("libgomp") and backend == "mnn"]
        libraries = [word for name in (*needs, f"./{LIBRARY[backend]}") for word in ("--library", name)]
        argv = ["./mkdrun", "--backend", WORD[backend], *libraries, *map(str, words)]
        done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False)
        return done.returncode, json.loads(done.stdout.splitlines()[-1])

    return run


def test_the_file_is_python_3_8():
    assert ast.parse(PROGRAM.read_text(encoding="utf-8"), feature_version=(3, 8)).body


def test_the_file_needs_nothing_of_this_package():
    tree = ast.parse(PROGRAM.read_text(encoding="utf-8"))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {alias.name for one in imports if isinstance(one, ast.Import) for alias in one.names}
    names |= {one.module for one in imports if isinstance(one, ast.ImportFrom)}

    assert names <= set(sys.stdlib_module_names)


@on_x86_64
@pytest.mark.parametrize("backend", BACKENDS)
def test_outputs_are_those_of_mkdrun_to_the_bit(backend, call, mkdrun, small_models, tmp_path):
    words = ("--model", small_models[backend].file, "--in", small_models[backend].inputs, "--out")

    codes = call(backend, *words, "by_python")[0], mkdrun(backend, *words, "by_mkdrun")[0]

    assert codes == (0, 0)
    assert (tmp_path / "by_python").read_bytes() == (tmp_path / "by_mkdrun").read_bytes()


@on_x86_64
@pytest.mark.parametrize("backend", BACKENDS)
def test_answer_has_the_words_and_sizes_of_mkdruns(backend, call, mkdrun, small_models):
    words = ("--model", small_models[backend].file, "--in", small_models[backend].inputs, "--out", "out", "--runs", 3)
    measured = {"load_us", "cpu_us", "rss_kb", "lat_ns", "runtime_version"}

    (_, by_python), (_, by_mkdrun) = call(backend, *words), mkdrun(backend, *words)

    assert {key: value for key, value in by_python.items() if key not in measured} == {
        key: value for key, value in by_mkdrun.items() if key not in measured
    }
    assert len(by_python["lat_ns"]) == 3


@pytest.mark.parametrize("backend", BACKENDS)
def test_answer_is_one_that_is_accepted(backend, small_models, tmp_path, monkeypatch):
    model = small_models[backend]
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    job = Job(backend, model.file.name, ("in",), ("out",), SAMPLES, warmup_runs=1, timed_runs=5)

    with Local(tmp_path) as host:
        host.push({**runner.python_kit(), model.file.name: model.file, "in": model.inputs})
        argv = job.argv((), runner.PYTHON, runner.PYTHON_PROGRAM)
        outcome = runner.run(host, job, argv, timeout_s=120)
        host.pull("out", tmp_path / "out")

    assert len(outcome.latencies_ms) == 5
    np.testing.assert_array_equal(model.read(tmp_path / "out"), model.logits)


@on_x86_64
@pytest.mark.parametrize(
    "words",
    [
        ("--model", "absent", "--in", "a"),
        ("--model", "garbled", "--in", "a"),
        ("--model", "two.onnx", "--in", "a", "--in", "absent"),
        ("--model", "two.onnx", "--in", "a", "--in", "short"),
        ("--model", "two.onnx", "--in", "a", "--in", "empty"),
        ("--model", "two.onnx", "--in", "a", "--in", "one"),
        ("--model", "two.onnx", "--in", "a", "--in", "b", "--out", "no/such", "--out", "o"),
        ("--model", "two.onnx", "--in", "a"),
        ("--model", "two.onnx", "--in", "a", "--in", "b", "--out", "o"),
        ("--model", "two.onnx", "--in", "a", "--in", "b", "--time-sample", 2),
        ("--model", "two.onnx", "--in", "a", "--runs", "many"),
        ("--model", "two.onnx", "--in", "a", "--threads", "0"),
        ("--model", "two.onnx", "--in", "a", "--cores", "3-1"),
        ("--model", "two.onnx", "--in", "a", "--cores", "900"),
        ("--model", "two.onnx", "--in", "a", "--cores", "0x0"),
        ("--model", "two.onnx", "--in", "a", "--speed", "9"),
        ("--model", "two.onnx", "--in"),
        ("--model", "two.onnx"),
    ],
)
def test_refusals_have_the_exit_codes_and_stages_of_mkdrun(words, call, mkdrun, two, tmp_path):  # noqa: F811
    (tmp_path / "garbled").write_bytes(b"no model at all" * 100)
    (tmp_path / "short").write_bytes(b"123456789")
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "one").write_bytes(bytes(8))

    (code, by_python), (expected, by_mkdrun) = call("onnxruntime", *words), mkdrun("onnxruntime", *words)

    assert (code, by_python["ok"], by_python["stage"]) == (expected, False, by_mkdrun["stage"])


@pytest.mark.parametrize("backend", BACKENDS)
def test_garbled_model_ends_with_4(backend, call, small_models, tmp_path):
    (tmp_path / "garbled").write_bytes(b"no model at all" * 100)

    code, answer = call(backend, "--model", "garbled", "--in", small_models[backend].inputs)

    assert (code, answer["ok"], answer["stage"]) == (4, False, "load")


def test_absent_package_ends_with_3_and_its_name(tmp_path):
    argv = [sys.executable, "-S", "-I", str(PROGRAM), "--backend", "mnn", "--model", "m", "--in", "a"]

    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False)

    answer = json.loads(done.stdout.splitlines()[-1])
    assert (done.returncode, answer["stage"]) == (3, "dlopen")
    assert "numpy" in answer["error"]


def test_every_input_and_output_has_its_file(call, two, tmp_path):  # noqa: F811
    code, answer = call("onnxruntime", *two, "--out", "sum", "--out", "rest")

    assert (code, answer["in_bytes"], answer["out_bytes"]) == (0, [8, 8], [8, 8])
    assert np.fromfile(tmp_path / "sum", np.float32).tolist() == [11, 22, 33, 44]
    assert np.fromfile(tmp_path / "rest", np.float32).tolist() == [-9, -18, -27, -36]


def test_output_does_not_write_through_a_link(call, two, tmp_path):  # noqa: F811
    (tmp_path / "kept").write_bytes(b"kept")
    (tmp_path / "sum").hardlink_to(tmp_path / "kept")

    code, _ = call("onnxruntime", *two, "--out", "sum", "--out", "rest")

    assert (code, (tmp_path / "kept").read_bytes()) == (0, b"kept")


def test_timed_runs_go_on_until_the_limit_is_reached_too(call, two):  # noqa: F811
    code, answer = call("onnxruntime", *two, "--runs", 2, "--limit-ms", 200)

    assert (code, answer["ok"]) == (0, True)
    assert len(answer["lat_ns"]) > 2


@pytest.mark.parametrize("cores", ["0", "0-0", "0x1"])
def test_cores_are_a_list_or_a_mask(cores, call, two):  # noqa: F811
    assert call("onnxruntime", *two, "--cores", cores)[0] == 0
