"""What the table says of a real export with two layers in float, and what it must match."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import ModelProto, helper, numpy_helper

from mobilekd import graph
from mobilekd.artifacts import OnnxModel, QatStudent
from mobilekd.backends._ort_check import check_against_table
from mobilekd.backends._ort_graph import fuse_ready
from mobilekd.backends._readback import trained
from mobilekd.backends.onnxruntime import lacks_vnni
from mobilekd.errors import ConfigError, StageError
from mobilekd.float_operators import find_float_operators
from mobilekd.quant_table import FloatOperator, QuantTable, load_table
from mobilekd.quantization import qat
from mobilekd.stage import Context, Inputs
from mobilekd.stages.export import write_onnx
from mobilekd.stages.simplify import Simplify, decided_layers
from mobilekd.table_check import check_matches
from tests.quantization.plain import RECIPE, images, plain
from tests.tiny import tiny_qdq
from tests.toys import Silent

PLAIN = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
ALL = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
KEPT = {"keep_float": ["head", "spoiled"], "mixed": {"layers": ["spoiled"]}}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with both graphs, the facts of the trained network, and its logits."""
    folder = tmp_path_factory.mktemp("exported")
    lowered = RECIPE.lowered(plain(), images(2))
    prepared = RECIPE.calibrated(lowered, [images()], frozenset(KEPT["keep_float"]))
    qat.settle_scales(prepared)
    qat.snap_biases(prepared)
    with torch.no_grad():
        np.save(folder / "logits.npy", prepared(images()).numpy())
    write_onnx(lowered, images(1), folder / "float.onnx", opset=18)
    write_onnx(qat.convert(prepared), images(1), folder / "qdq.onnx", opset=18)
    (folder / "network.json").write_text(json.dumps(KEPT))
    return folder


def simplify(exported: Path, stage: Simplify, out: Path) -> Silent:
    out.mkdir(exist_ok=True)
    watcher = Silent()
    inputs = Inputs([OnnxModel(exported, "exported"), QatStudent(exported, "trained")])
    stage.run(inputs, Context(out, out, out, watcher))
    return watcher


@pytest.fixture(scope="module")
def simplified(exported, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("simplified")
    simplify(exported, Simplify(), out)
    return out


@pytest.fixture(scope="module")
def table(simplified) -> QuantTable:
    return load_table(simplified / "quant_table.json")


@pytest.fixture
def stripped(simplified) -> ModelProto:
    return graph.load(simplified / "stripped.onnx")


def test_layers_in_float_stand_in_the_table_with_who_decided_it(table) -> None:
    found = [(one.operator, one.reason) for one in table.float_operators]
    assert found == [
        ("Conv", "kept in float: max_top1_drop"),
        ("Relu", "kept in float: max_top1_drop"),
        ("Gemm", "kept in float: keep_float"),
    ]
    assert table.float_operators[-1].name == "logits"
    assert all(one.is_decided for one in table.float_operators)


def test_a_layer_in_float_has_no_entry_for_its_weight(table) -> None:
    assert {one.name for one in table.with_role("weight")} == {"stem.weight", "middle.weight"}
    assert {one.name for one in table.with_role("bias")} == {"stem.bias", "middle.bias"}
    assert "logits" not in table.by_name()


def run(model: ModelProto, level: onnxruntime.GraphOptimizationLevel) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    if lacks_vnni():
        options.add_session_config_entry("session.x64quantprecision", "1")
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, {"image": one.numpy()[None]})[0] for one in images()])


def test_the_mixed_file_says_what_was_trained(simplified, exported) -> None:
    answers = run(graph.load(simplified / "qdq.onnx"), PLAIN)
    assert np.abs(answers - np.load(exported / "logits.npy")).max() < 0.02 * np.abs(answers).max()


def test_onnxruntime_keeps_a_float_layer_in_float_when_it_optimizes(simplified) -> None:
    qdq = graph.load(simplified / "qdq.onnx")
    expected, optimized = run(qdq, PLAIN), run(fuse_ready(qdq), ALL)
    assert np.abs(optimized - expected).max() < 1e-3 * np.abs(expected).max()


def test_a_file_for_onnxruntime_with_float_layers_reads_back(simplified, table, tmp_path) -> None:
    qdq = graph.load(simplified / "qdq.onnx")
    graph.save(fuse_ready(qdq), tmp_path / "model.onnx")
    check_against_table(tmp_path / "model.onnx", table, trained(simplified / "qdq.onnx", table))


def test_the_stage_says_what_stays_float(exported, tmp_path) -> None:
    said = [line for line in simplify(exported, Simplify(), tmp_path / "out").lines if "in float" in line]
    assert said == ["simplify: 2 layer(s) compute in float by decision"]


def test_require_int8_names_node_operator_and_reason(exported, tmp_path) -> None:
    with pytest.raises(StageError, match=r"2 layer\(s\)[^$]*'logits' \(Gemm\): kept in float: keep_float") as refusal:
        simplify(exported, Simplify(require_int8=True), tmp_path / "out")
    assert refusal.value.exit_code == 4


def test_layers_without_a_decision_of_mixed_precision_are_those_of_keep_float() -> None:
    assert decided_layers({"keep_float": ["head"], "mixed": None}) == {"head": "keep_float"}


def test_an_int8_graph_has_no_float_operators() -> None:
    assert find_float_operators(tiny_qdq(), {}) == ()


def with_node(model: ModelProto, reader: str, node_type: str) -> ModelProto:
    """Return the graph with one more operator between a rounded tensor and the operator that reads it."""
    place = next(index for index, node in enumerate(model.graph.node) if node.name == reader)
    after = model.graph.node[place]
    model.graph.node.insert(place, helper.make_node(node_type, [after.input[0]], ["more"], "node_more"))
    model.graph.node[place + 1].input[0] = "more"
    return model


def test_an_operator_without_an_int8_kernel_is_named_with_the_runtimes_that_lack_it() -> None:
    softmax = find_float_operators(with_node(tiny_qdq(), "node_mean", "Softmax"), {})[0]
    assert (softmax.name, softmax.operator) == ("more", "Softmax")
    assert "TensorRT" in softmax.reason


def test_an_operator_that_reads_what_is_not_rounded_is_named_with_that_tensor() -> None:
    found = {one.operator: one.reason for one in find_float_operators(with_node(tiny_qdq(), "node_linear", "Erf"), {})}
    assert found["Gemm"] == "reads 'more', which is not rounded"


def test_moving_float_numbers_is_no_computation() -> None:
    floats = find_float_operators(with_node(tiny_qdq(), "node_flat", "Erf"), {})
    assert [one.operator for one in floats] == ["Erf"]


def test_a_table_of_version_1_is_refused_with_the_way_out(tmp_path) -> None:
    (tmp_path / "quant_table.json").write_text('{"schema": "mobilekd.quant_table/1", "rounding": "", "tensors": []}')
    with pytest.raises(ConfigError, match=r"mobilekd\.quant_table/2") as refusal:
        load_table(tmp_path / "quant_table.json")
    assert "build the bundle again" in refusal.value.hint


def test_a_table_matches_the_graph_that_it_was_read_from(table, stripped) -> None:
    check_matches(table, stripped)


def changed(table: QuantTable, which: str, /, **fields: object) -> QuantTable:
    tensors = tuple(replace(one, **fields) if one.name == which else one for one in table.tensors)
    return replace(table, tensors=tensors)


@pytest.mark.parametrize(
    ("name", "fields", "told"),
    [
        ("image", {"name": "picture"}, "no operator writes the activation 'picture'"),
        ("stem.weight", {"name": "root.weight"}, "the graph has no weight 'root.weight'"),
        ("middle.bias", {"name": "muddle.bias"}, "the graph has no bias 'muddle.bias'"),
        ("stem.weight", {"scale": (1.0,) * 7}, "'stem.weight' has 8 channels in the graph and 7 scales"),
        ("stem.weight", {"axis": None}, "'stem.weight' has 8 scales and no axis"),
    ],
)
def test_an_entry_that_is_not_of_the_graph_is_named(table, stripped, name: str, fields: dict, told: str) -> None:
    with pytest.raises(StageError, match=told):
        check_matches(changed(table, name, **fields), stripped)


def test_a_layer_that_the_table_forgets_is_named(table, stripped) -> None:
    shorter = replace(table, tensors=tuple(one for one in table.tensors if one.name != "middle.weight"))
    with pytest.raises(StageError, match=r"'middle\.weight', read by the Conv"):
        check_matches(shorter, stripped)


def test_a_float_layer_that_is_not_in_the_list_is_named(table, stripped) -> None:
    with pytest.raises(StageError, match=r"'head\.weight'|read by the Gemm 'logits'"):
        check_matches(replace(table, float_operators=table.float_operators[:-1]), stripped)


def test_a_float_operator_that_the_graph_lacks_is_named(table, stripped) -> None:
    more = (*table.float_operators, FloatOperator("nowhere", "Erf", "no kernel"))
    with pytest.raises(StageError, match="'nowhere', which float_operators names"):
        check_matches(replace(table, float_operators=more), stripped)


def test_the_file_of_a_kept_weight_is_float(stripped) -> None:
    weights = {one.name: numpy_helper.to_array(one) for one in stripped.graph.initializer}
    assert np.array_equal(weights["spoiled.weight"], plain().spoiled.weight.detach().numpy())
