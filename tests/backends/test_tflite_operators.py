from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from mobilekd import graph
from mobilekd.backend import Float32
from mobilekd.backends._tflite_graph import count_kind, float_matrix_ops, other_float_ops, read_model, view
from mobilekd.backends._tflite_session import TfliteSession
from mobilekd.backends._tflite_trace import trace
from mobilekd.backends._tflite_write import write
from mobilekd.backends.tflite import Tflite
from mobilekd.errors import StageError
from mobilekd.reference_network import ReferenceNetwork
from tests.backends.operator_cases import CASES, Case
from tests.backends.small_graphs import float_graph, rounded_graph, run_nodes, save

MOST_OFF = 0.02
"""Share of values that built-in kernels may round another way: they round a product twice."""


def image_of(case: Case, seed: int = 1) -> Float32:
    return np.random.default_rng(seed).normal(size=case.shape).astype(np.float32)


def outputs(model: Path, image: Float32, kernels: str) -> Float32:
    session = TfliteSession(model, kernels, threads=1)
    session.load_input(image)
    session.invoke()
    return session.read_output()


def own_steps(
    onnx_model: Path, tflite_model: Path, image: Float32, kernels: str, absent: tuple[str, ...] = ()
) -> list[Float32]:
    """Return how far each rounded tensor is from what its operator makes of the deployed model's own inputs."""
    network, table = ReferenceNetwork(onnx_model), graph.read_table(graph.load(onnx_model)).by_name()
    traced = dict(trace(tflite_model, image, network.names, kernels))
    assert {*traced, *absent} == set(network.names)
    wanted = network.run(image, traced)
    return [np.rint(np.abs(traced[name] - wanted[name]) / table[name].scale[0]) for name in traced]


@pytest.mark.parametrize("kernels", Tflite.kernels)
@pytest.mark.parametrize("name", CASES)
def test_an_operator_computes_in_float_what_onnx_runtime_does(name: str, kernels: str, tmp_path: Path) -> None:
    case = CASES[name]
    model, image = float_graph(case.steps, case.constants, case.shape), image_of(case)
    write(save(model, tmp_path / "m.onnx"), tmp_path / "m.tflite", io="float32", half_weights=False)
    wanted = run_nodes(model, image)["logits"][0]
    found = outputs(tmp_path / "m.tflite", image, kernels)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5 * float(np.abs(wanted).max()))


@pytest.mark.parametrize("kernels", Tflite.kernels)
@pytest.mark.parametrize("zero_point", [0, -7])
@pytest.mark.parametrize("name", CASES)
def test_an_operator_rounds_in_int8_as_training_does(name: str, zero_point: int, kernels: str, tmp_path: Path) -> None:
    case = CASES[name]
    image = image_of(case)
    model = rounded_graph(
        case.steps, case.constants, case.shape, image, zero_point=zero_point, unrounded=case.unrounded
    )
    write(save(model, tmp_path / "m.onnx"), tmp_path / "m.tflite", io="float32", half_weights=False)
    off = own_steps(tmp_path / "m.onnx", tmp_path / "m.tflite", image, kernels, case.absent)
    assert max(float(one.max()) for one in off) <= 1
    assert max(float(one.mean()) for one in off) <= MOST_OFF


@pytest.mark.parametrize("name", CASES)
def test_only_operators_without_an_exact_int8_kernel_stay_float(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    model = rounded_graph(case.steps, case.constants, case.shape, image_of(case), unrounded=case.unrounded)
    write(save(model, tmp_path / "m.onnx"), tmp_path / "m.tflite", io="float32", half_weights=False)
    written = view(read_model(tmp_path / "m.tflite"))
    assert tuple(one.split()[0] for one in other_float_ops(written)) == case.float_ops
    assert float_matrix_ops(written) == case.float_layers


def test_both_parts_of_a_split_are_right(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Split", ["image", "sizes"], ["a", "b"], axis=1, name="split"),
        helper.make_node("GlobalAveragePool", ["a"], ["mean"], name="mean"),
        helper.make_node("Mul", ["b", "mean"], ["logits"], name="mul"),
    ]
    model = float_graph([("Relu", ("image",), {})], {"sizes": np.array([1, 3], np.int64)}, (1, 4, 5, 5))
    del model.graph.node[:]
    nodes[2].input[0], nodes[1].input[0] = "a", "b"
    nodes.insert(1, helper.make_node("ReduceMax", ["b", "axes"], ["largest"], name="largest"))
    nodes[2].input[0] = "largest"
    model.graph.node.extend(nodes)
    model.graph.initializer.append(helper.make_tensor("axes", TensorProto.INT64, [1], [1]))
    image = np.random.default_rng(2).normal(size=(1, 4, 5, 5)).astype(np.float32)
    write(save(model, tmp_path / "m.onnx"), tmp_path / "m.tflite", io="float32", half_weights=False)
    wanted = run_nodes(model, image)["logits"][0]
    np.testing.assert_allclose(outputs(tmp_path / "m.tflite", image, "builtin"), wanted, rtol=1e-5, atol=1e-6)


def test_a_scale_changed_between_two_tensors_is_rounded_once(tmp_path: Path) -> None:
    image = np.random.default_rng(4).normal(size=(1, 8, 6, 6)).astype(np.float32)
    model = rounded_graph([("Identity", ("image",), {}), ("Abs", ("t0",), {})], {}, (1, 8, 6, 6), image)
    scale = next(one for one in model.graph.initializer if one.name == "t0_s")
    scale.CopyFrom(helper.make_tensor("t0_s", TensorProto.FLOAT, [], [0.0137]))
    write(save(model, tmp_path / "m.onnx"), tmp_path / "m.tflite", io="float32", half_weights=False)
    off = own_steps(tmp_path / "m.onnx", tmp_path / "m.tflite", image, "xnnpack")
    assert max(float(one.max()) for one in off) == 0
    assert count_kind(view(read_model(tmp_path / "m.tflite")), "QUANTIZE") == 1


def test_an_operator_that_is_not_known_is_named_with_the_list_of_those_that_are(tmp_path: Path) -> None:
    model = save(float_graph([("Det", ("image",), {})], {}, (1, 2, 3, 3)), tmp_path / "m.onnx")
    with pytest.raises(StageError, match=r"no TFLite form is known of the ONNX operator Det \(Det_logits\)") as caught:
        write(model, tmp_path / "m.tflite", io="float32", half_weights=False)
    assert "Conv, ConvTranspose, DepthToSpace" in caught.value.hint


def test_int8_input_of_a_graph_that_does_not_round_it_is_an_error(tmp_path: Path) -> None:
    model = save(float_graph([("Relu", ("image",), {})], {}, (1, 2, 3, 3)), tmp_path / "m.onnx")
    with pytest.raises(StageError, match="io = int8, but 'image' is not quantized"):
        write(model, tmp_path / "m.tflite", io="int8", half_weights=False)


def test_a_weight_that_the_graph_transposes_runs_in_int8(tmp_path: Path) -> None:
    case, image = CASES["Gemm, weights as they are"], image_of(CASES["Gemm, weights as they are"])
    model = rounded_graph(case.steps, case.constants, case.shape, image)
    turn_weight(model)
    write(save(model, tmp_path / "m.onnx"), tmp_path / "m.tflite", io="float32", half_weights=False)
    assert float_matrix_ops(view(read_model(tmp_path / "m.tflite"))) == ()
    assert max(float(one.max()) for one in own_steps(tmp_path / "m.onnx", tmp_path / "m.tflite", image, "xnnpack")) == 0


def turn_weight(model: ModelProto) -> None:
    """Store the weight of a Gemm the other way round, and put a Transpose behind it."""
    weight = next(one for one in model.graph.initializer if one.name == "w1_int8")
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight).T.copy(), "w1_int8"))
    restore = next(node for node in model.graph.node if node.output[0] == "w1_r")
    restore.output[0] = "w1_turned"
    next(one for one in restore.attribute if one.name == "axis").i = 0
    at = list(model.graph.node).index(restore) + 1
    model.graph.node.insert(at, helper.make_node("Transpose", ["w1_turned"], ["w1_r"], perm=[1, 0]))
