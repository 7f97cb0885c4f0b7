import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from mobilekd import graph
from mobilekd.errors import ConfigError, StageError
from mobilekd.graph_pairs import merge_repeated_pairs, separate_pairs
from mobilekd.graph_weights import name_weights
from mobilekd.quant_table import QuantTable, load_table, save_table
from tests.tiny import CONV_SCALES, GEMM_SCALES, IMAGE_SCALE, POOL_SCALE, tiny_qdq


@pytest.fixture
def named() -> onnx.ModelProto:
    return graph.snap_biases(name_weights(tiny_qdq()))


def run(model: onnx.ModelProto, image: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    return session.run(None, {"image": image})[0]


def image(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(1, 3, 4, 4)).astype(np.float32) * 8


def test_weights_are_named_for_their_layer(named) -> None:
    names = {one.name for one in named.graph.initializer}
    assert {"stem.conv.weight", "stem.conv.bias", "head.weight", "head.bias"} <= names


def test_a_bias_moves_by_at_most_half_its_grid(named) -> None:
    bias = {one.name: numpy_helper.to_array(one) for one in named.graph.initializer}["stem.conv.bias"]
    grid = IMAGE_SCALE * CONV_SCALES
    assert np.abs(bias - [0.3, -1.0]).max() <= grid.max() / 2
    assert (bias / grid == np.rint(bias / grid)).all()


def test_a_bias_that_does_not_fit_int32_is_refused() -> None:
    with pytest.raises(StageError, match=r"stem\.conv\.bias"):
        graph.snap_biases(name_weights(tiny_qdq(conv_bias=(1e12, 0.0))))


def test_the_table_holds_every_scale_of_the_graph(named) -> None:
    table = graph.read_table(named).by_name()
    assert list(table) == [
        "image", "stem.conv.weight", "stem.conv.bias", "relu", "mean", "flat", "head.weight", "head.bias", "logits",
    ]  # fmt: skip
    assert table["image"].scale == (IMAGE_SCALE,)
    assert table["stem.conv.weight"].scale == tuple(CONV_SCALES)
    assert table["stem.conv.weight"].axis == 0
    assert table["head.bias"].scale == tuple(POOL_SCALE * GEMM_SCALES)
    assert (table["logits"].quant_min, table["head.weight"].quant_min) == (-128, -127)
    assert table["head.bias"].dtype == "int32"


def test_a_table_survives_its_file(named, tmp_path) -> None:
    table = graph.read_table(named)
    save_table(table, tmp_path / "quant_table.json")
    assert load_table(tmp_path / "quant_table.json") == table


@pytest.mark.parametrize("text", ["{}", "[]", "no json", '{"schema": "mobilekd.quant_table/9"}'])
def test_a_file_that_is_no_table_is_refused(tmp_path, text: str) -> None:
    (tmp_path / "quant_table.json").write_text(text)
    with pytest.raises(ConfigError, match=r"quant_table\.json"):
        load_table(tmp_path / "quant_table.json")


def test_an_empty_table_survives_its_file(tmp_path) -> None:
    save_table(QuantTable(()), tmp_path / "quant_table.json")
    assert load_table(tmp_path / "quant_table.json").tensors == ()


def test_the_stripped_graph_has_no_qdq_and_the_same_names(named) -> None:
    stripped = graph.strip_qdq(named)
    assert [node.op_type for node in stripped.graph.node] == ["Conv", "Relu", "ReduceMean", "Reshape", "Gemm"]
    assert [node.output[0] for node in stripped.graph.node] == ["conv", "relu", "mean", "flat", "logits"]
    onnx.checker.check_model(stripped)


def test_the_stripped_graph_computes_the_same_but_for_rounding(named) -> None:
    difference = np.abs(run(graph.strip_qdq(named), image()) - run(named, image()))
    assert difference.max() < 0.25  # four output steps, through four roundings


def test_stripped_weights_are_int8_times_scale(named) -> None:
    constants = {one.name: numpy_helper.to_array(one) for one in named.graph.initializer}
    stripped = {one.name: numpy_helper.to_array(one) for one in graph.strip_qdq(named).graph.initializer}
    expected = constants["stem.conv.weight"] * CONV_SCALES.reshape(2, 1, 1, 1)
    assert np.array_equal(stripped["stem.conv.weight"], expected)


def test_a_spatial_mean_becomes_a_pool_that_computes_the_same(named) -> None:
    before = run(named, image())
    pooled = graph.pool_globally(named)
    assert [node.op_type for node in pooled.graph.node if node.name == "node_mean"] == ["GlobalAveragePool"]
    assert np.array_equal(run(pooled, image()), before)


def test_int8_initializers_do_not_count_zero_points(named) -> None:
    assert graph.int8_initializers(named) == 2


def test_a_layer_without_int8_input_is_named(named) -> None:
    assert graph.float_layers(named) == ()
    assert graph.float_layers(graph.strip_qdq(named)) == ("node_conv", "node_linear")


def test_canonical_models_carry_no_source_lines() -> None:
    model = tiny_qdq()
    model.graph.node[0].metadata_props.add(key="pkg.torch.onnx.stack_trace", value="/home/me/net.py")
    model.graph.node[0].doc_string = "/home/me/net.py"
    assert b"/home/me" not in graph.canonicalize(model).SerializeToString()


def test_a_pair_behind_a_pair_is_one_tensor(named) -> None:
    doubled = onnx.ModelProto.FromString(named.SerializeToString())
    nodes = list(doubled.graph.node)
    reader = next(node for node in nodes if node.op_type == "ReduceMean")
    pair = [
        onnx.helper.make_node("QuantizeLinear", [reader.input[0], "r_scale", "zero"], ["again_q"], "again_q"),
        onnx.helper.make_node("DequantizeLinear", ["again_q", "r_scale", "zero"], ["again"], "again"),
    ]
    reader.input[0] = "again"
    at = nodes.index(reader)
    del doubled.graph.node[:]
    doubled.graph.node.extend([*nodes[:at], *pair, *nodes[at:]])
    merged = merge_repeated_pairs(doubled)
    assert merged.SerializeToString(deterministic=True) == named.SerializeToString(deterministic=True)


def test_a_graph_without_repeated_pairs_stays_as_it_is(named) -> None:
    before = named.SerializeToString(deterministic=True)
    assert merge_repeated_pairs(named).SerializeToString(deterministic=True) == before


def test_a_tensor_that_is_rounded_twice_has_two_names_and_the_same_answers(named) -> None:
    twice = onnx.ModelProto.FromString(named.SerializeToString())
    nodes = list(twice.graph.node)
    reader = next(node for node in nodes if node.op_type == "ReduceMean")
    pair = [
        onnx.helper.make_node("QuantizeLinear", [reader.input[0], "p_scale", "zero"], ["again_q"], "again_q"),
        onnx.helper.make_node("DequantizeLinear", ["again_q", "p_scale", "zero"], ["again"], "again"),
    ]
    reader.input[0] = "again"
    at = nodes.index(reader)
    del twice.graph.node[:]
    twice.graph.node.extend([*nodes[:at], *pair, *nodes[at:]])
    before = run(twice, image())
    apart = separate_pairs(twice)
    assert "again_q_again" in graph.read_table(apart).by_name()
    assert np.array_equal(run(apart, image()), before)
    onnx.checker.check_model(graph.strip_qdq(apart))


def test_equal_weights_of_two_layers_are_stored_apart() -> None:
    shared = tiny_qdq()
    conv = next(one for one in shared.graph.node if one.op_type == "Conv")
    makers = {name: node for node in shared.graph.node for name in node.output}
    second = onnx.NodeProto.FromString(makers[conv.input[1]].SerializeToString())
    second.output[0] = second.name = "conv_again_w"
    again = onnx.helper.make_node("Conv", [conv.input[0], "conv_again_w", conv.input[2]], ["conv_again"], "node_again")
    shared.graph.node.insert(list(shared.graph.node).index(conv), second)
    shared.graph.node.insert(list(shared.graph.node).index(conv) + 1, again)
    named = name_weights(shared)
    weights = [node.input[0] for node in named.graph.node if node.op_type == "DequantizeLinear" and node.name != "dq_g"]
    constants = {one.name: numpy_helper.to_array(one) for one in named.graph.initializer}
    stored = [name for name in weights if name in constants]
    assert len(set(stored)) == 2
    assert np.array_equal(constants[stored[0]], constants[stored[1]])
