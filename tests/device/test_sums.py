"""All 65,536 pairs of int8 values, added by ONNX Runtime on this host and on emulated CPUs."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mobilekd.backends.onnxruntime import _load
from mobilekd.device import runner
from mobilekd.transports.qemu import Qemu
from tests.device.tools import need
from tests.quantization.sums import PARTED, A, B, cleared, trained_way

CPUS = ("cortex-a53", "cortex-a76", "armv8.6")


def write_sum(scales: tuple[float, float, float], folder: Path) -> Path:
    """Write a model that adds two uint8 tensors with zero points of 128, and both inputs beside it."""
    nodes = [
        helper.make_node("DequantizeLinear", ["a", "scale_a", "zero"], ["real_a"]),
        helper.make_node("DequantizeLinear", ["b", "scale_b", "zero"], ["real_b"]),
        helper.make_node("Add", ["real_a", "real_b"], ["real_c"]),
        helper.make_node("QuantizeLinear", ["real_c", "scale_c", "zero"], ["c"]),
    ]
    constants = {f"scale_{name}": np.float32(one) for name, one in zip("abc", scales, strict=True)}
    tensors = [helper.make_tensor_value_info(name, TensorProto.UINT8, [1, A.size]) for name in "abc"]
    initializers = [numpy_helper.from_array(np.asarray(one), name) for name, one in constants.items()]
    initializers.append(numpy_helper.from_array(np.uint8(128), "zero"))
    graph = helper.make_graph(nodes, "sum", tensors[:2], tensors[2:], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    path = folder / "sum.onnx"
    path.write_bytes(model.SerializeToString())
    for name, values in (("a", A), ("b", B)):
        (values + 128).astype(np.uint8).tofile(folder / name)
    return path


def on_host(model: Path) -> np.ndarray:
    feeds = {name: np.fromfile(model.with_name(name), np.uint8)[None] for name in "ab"}
    found: np.ndarray = _load(model, threads=1).run(None, feeds)[0][0].astype(np.int64) - 128
    return found


def on_device(cpu: str, kit, state: Path, model: Path) -> np.ndarray:
    job = runner.Job("onnxruntime", model.name, ("a", "b"), ("c",), 1)
    names = runner.library_names(job.backend, tuple(kit))
    with Qemu(state, cpu) as device:
        pushed = {name: kit[name] for name in (runner.PROGRAM, *names)}
        device.push(pushed | {model.name: model} | {name: model.with_name(name) for name in "ab"})
        runner.run(device, job, job.argv(names), timeout_s=120)
        device.pull("c", model.with_name("c"))
    return np.fromfile(model.with_name("c"), np.uint8).astype(np.int64) - 128


@pytest.fixture(autouse=True)
def _tools() -> None:
    need("qemu-aarch64")


@pytest.mark.parametrize("cpu", CPUS)
def test_a_sum_of_cleared_scales_is_the_trained_one_for_all_pairs(cpu, arm_kit, state, tmp_path) -> None:
    scales = cleared(PARTED)
    np.testing.assert_array_equal(on_device(cpu, arm_kit, state, write_sum(scales, tmp_path)), trained_way(scales))


def test_a_sum_of_cleared_scales_is_the_trained_one_on_this_host(tmp_path) -> None:
    scales = cleared(PARTED)
    np.testing.assert_array_equal(on_host(write_sum(scales, tmp_path)), trained_way(scales))


def test_without_cleared_scales_arm_and_this_host_part(arm_kit, state, tmp_path) -> None:
    model = write_sum(PARTED, tmp_path)
    parted = np.flatnonzero(on_device("cortex-a76", arm_kit, state, model) != on_host(model))
    assert [(A[one], B[one]) for one in parted] == [(-20, 22)]


def test_the_model_is_one_integer_kernel(tmp_path) -> None:
    _load(write_sum(PARTED, tmp_path), threads=1, optimized=tmp_path / "optimized.onnx")
    assert [one.op_type for one in onnx.load(tmp_path / "optimized.onnx").graph.node] == ["QLinearAdd"]
