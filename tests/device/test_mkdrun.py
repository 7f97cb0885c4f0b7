"""mkdrun itself, on this host with the runtimes of this Python: its exit codes, its words, its files."""

import json
import os
import subprocess

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.device.models import SAMPLES

pytestmark = pytest.mark.skipif(os.uname().machine != "x86_64", reason="needs an x86_64 host")

LIBRARY = {"tflite": "libLiteRt.so", "onnxruntime": "libonnxruntime.so", "mnn": "libmnn.so"}
WORD = {"tflite": "litert", "onnxruntime": "onnxruntime", "mnn": "mnn"}


@pytest.fixture
def call(host_kit, tmp_path):
    """Give a function that runs mkdrun with a backend and words; it returns (exit code, the JSON of its last line)."""
    for name, file in host_kit.items():
        (tmp_path / name).symlink_to(file)

    def run(backend, *words):
        libraries = [f"./{name}" for name in host_kit if name.startswith("libgomp") and backend == "mnn"]
        argv = [str(host_kit["mkdrun"]), "--backend", WORD[backend]]
        argv += [word for name in (*libraries, f"./{LIBRARY[backend]}") for word in ("--library", name)]
        argv += map(str, words)
        env = {"HOME": str(tmp_path / "home")}
        done = subprocess.run(argv, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
        return done.returncode, json.loads(done.stdout.splitlines()[-1])

    return run


@pytest.fixture
def two(tmp_path):
    """Give a model with outputs a + b and a - b of inputs a [2] and b [2]."""
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in ("a", "b", "sum", "rest")]
    nodes = [helper.make_node("Add", ["a", "b"], ["sum"]), helper.make_node("Sub", ["a", "b"], ["rest"])]
    graph = helper.make_graph(nodes, "two", ends[:2], ends[2:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, tmp_path / "two.onnx")
    np.array([[1, 2], [3, 4]], np.float32).tofile(tmp_path / "a")
    np.array([[10, 20], [30, 40]], np.float32).tofile(tmp_path / "b")
    return ("--model", "two.onnx", "--in", "a", "--in", "b")


@pytest.mark.parametrize("backend", ["tflite", "onnxruntime", "mnn"])
def test_outputs_on_this_host_are_the_backends_own_to_the_bit(backend, call, small_models, tmp_path):
    model = small_models[backend]

    code, answer = call(backend, "--model", model.file, "--in", model.inputs, "--out", "out")

    assert (code, answer["ok"], answer["samples"]) == (0, True, SAMPLES)
    np.testing.assert_array_equal(model.read(tmp_path / "out"), model.logits)


def test_every_input_and_output_has_its_file(call, two, tmp_path):
    code, answer = call("onnxruntime", *two, "--out", "sum", "--out", "rest")

    assert (code, answer["in_bytes"], answer["out_bytes"]) == (0, [8, 8], [8, 8])
    assert np.fromfile(tmp_path / "sum", np.float32).tolist() == [11, 22, 33, 44]
    assert np.fromfile(tmp_path / "rest", np.float32).tolist() == [-9, -18, -27, -36]


def test_answer_has_a_time_for_every_timed_run(call, two):
    code, answer = call("onnxruntime", *two, "--warmup", 2, "--runs", 7)

    assert (code, len(answer["lat_ns"]), answer["samples"]) == (0, 7, 0)
    assert min(answer["lat_ns"]) > 0


def test_timed_runs_go_on_until_the_limit_is_reached_too(call, two):
    code, answer = call("onnxruntime", *two, "--runs", 2, "--limit-ms", 1000)

    assert (code, answer["ok"]) == (0, True)
    assert len(answer["lat_ns"]) > 2
    assert sum(answer["lat_ns"][:-1]) <= 1000e6


@pytest.mark.parametrize("backend", ["tflite", "onnxruntime", "mnn"])
def test_garbled_model_ends_with_4(backend, call, small_models, tmp_path):
    (tmp_path / "garbled").write_bytes(b"no model at all" * 100)

    code, answer = call(backend, "--model", "garbled", "--in", small_models[backend].inputs)

    assert (code, answer["ok"], answer["stage"]) == (4, False, "load")


@pytest.mark.parametrize(
    ("words", "refusal"),
    [
        (("--model", "absent", "--in", "a"), (6, "io", "absent: No such file")),
        (("--model", "two.onnx", "--in", "a", "--in", "absent"), (6, "io", "absent: No such file")),
        (("--model", "two.onnx", "--in", "a", "--in", "short"), (6, "io", "short has 9 bytes")),
        (("--model", "two.onnx", "--in", "a", "--in", "empty"), (6, "io", "empty has 0 bytes")),
        (("--model", "two.onnx", "--in", "a", "--in", "one"), (6, "io", "a holds 2 samples and one holds 1")),
        (("--model", "two.onnx", "--in", "a", "--in", "b", "--out", "no/such", "--out", "o"), (6, "io", "no/such")),
        (("--model", "two.onnx", "--in", "a"), (2, "usage", "2 inputs, and --in stands 1 times")),
        (("--model", "two.onnx", "--in", "a", "--in", "b", "--out", "o"), (2, "usage", "2 outputs")),
        (("--model", "two.onnx", "--in", "a", "--in", "b", "--time-sample", 2), (2, "usage", "there are 2 samples")),
        (("--model", "two.onnx", "--in", "a", "--runs", "many"), (2, "usage", "--runs is 'many'")),
        (("--model", "two.onnx", "--in", "a", "--cores", "3-1"), (2, "usage", "--cores is '3-1'")),
        (("--model", "two.onnx", "--in", "a", "--cores", "900"), (2, "usage", "cores 900")),
        (("--model", "two.onnx", "--in", "a", "--speed", "9"), (2, "usage", "unknown option '--speed'")),
        (("--model", "two.onnx", "--in"), (2, "usage", "'--in' stands without a value")),
        (("--model", "two.onnx"), (2, "usage", "are needed")),
        (("--library", "./absent.so", "--model", "two.onnx", "--in", "a"), (3, "dlopen", "./absent.so")),
        (("--library", "libm.so.6", "--model", "two.onnx", "--in", "a"), (3, "dlopen", "OrtGetApiBase")),
    ],
)
def test_refusal_names_the_stage_and_the_reason(words, refusal, call, two, tmp_path):
    code, stage, says = refusal
    (tmp_path / "short").write_bytes(b"123456789")
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "one").write_bytes(bytes(8))

    found, answer = call("onnxruntime", *words)

    assert (found, answer["ok"], answer["stage"]) == (code, False, stage)
    assert says in answer["error"]


def test_error_with_quotes_and_newlines_stays_one_line_of_json(call, two):
    code, answer = call("onnxruntime", "--model", 'a "b"\n\\c\x7f', "--in", "a")

    assert (code, answer["error"]) == (6, 'a "b"\n\\c\x7f: No such file or directory')


def test_output_does_not_write_through_a_link(call, two, tmp_path):
    (tmp_path / "kept").write_bytes(b"kept")
    (tmp_path / "sum").hardlink_to(tmp_path / "kept")

    code, _ = call("onnxruntime", *two, "--out", "sum", "--out", "rest")

    assert (code, (tmp_path / "kept").read_bytes()) == (0, b"kept")


@pytest.mark.parametrize("backend", ["tflite", "onnxruntime", "mnn"])
def test_runtime_keeps_no_record_of_its_use(backend, call, small_models, tmp_path):
    (tmp_path / "home").mkdir()

    code, _ = call(backend, "--model", small_models[backend].file, "--in", small_models[backend].inputs)

    assert (code, list((tmp_path / "home").rglob("*"))) == (0, [])


@pytest.mark.parametrize("cores", ["0", "0-0", "0x1"])
def test_cores_are_a_list_or_a_mask(cores, call, two):
    assert call("onnxruntime", *two, "--cores", cores)[0] == 0


@pytest.mark.parametrize("backend", ["tflite", "mnn"])
def test_profile_has_every_layer_of_every_timed_run_and_of_no_other(backend, call, small_models, tmp_path):
    words = ("--model", small_models[backend].file, "--in", small_models[backend].inputs, "--profile-out", "layers")

    call(backend, *words, "--warmup", 3, "--runs", 1)
    one = (tmp_path / "layers").read_text().splitlines()
    code, _ = call(backend, *words, "--warmup", 5, "--runs", 4, "--out", "out")
    four = (tmp_path / "layers").read_text().splitlines()

    assert (code, len(four)) == (0, 4 * len(one))
    assert [json.loads(line)["name"] for line in four] == 4 * [json.loads(line)["name"] for line in one]


def test_profile_of_onnxruntime_is_its_own_trace_of_all_runs(call, two, tmp_path):
    code, _ = call("onnxruntime", *two, "--warmup", 2, "--runs", 3, "--profile-out", "trace.json")

    events = json.loads((tmp_path / "trace.json").read_text())
    assert (code, sum(event["name"] == "model_run" for event in events)) == (0, 5)
    assert not list(tmp_path.glob("ort-profile*"))


@pytest.mark.parametrize("backend", ["tflite", "onnxruntime", "mnn"])
def test_outputs_with_the_profiler_on_are_the_same(backend, call, small_models, tmp_path):
    model = small_models[backend]

    call(backend, "--model", model.file, "--in", model.inputs, "--out", "out", "--runs", 2, "--profile-out", "layers")

    np.testing.assert_array_equal(model.read(tmp_path / "out"), model.logits)


@pytest.mark.parametrize("backend", ["tflite", "onnxruntime", "mnn"])
def test_profile_that_can_not_be_written_ends_with_6(backend, call, small_models):
    words = ("--model", small_models[backend].file, "--in", small_models[backend].inputs)

    code, answer = call(backend, *words, "--runs", 1, "--profile-out", "no/such/file")

    assert (code, answer["stage"]) == (6, "io")
