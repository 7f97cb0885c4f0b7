from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from mobilekd import graph
from mobilekd.quant_table import load_table
from mobilekd.reference_network import ReferenceNetwork
from tests.backends import tiny


@pytest.fixture
def work(tmp_path: Path) -> tiny.Tiny:
    return tiny.write_tiny(tmp_path / "tiny")


@pytest.fixture
def network(work: tiny.Tiny) -> ReferenceNetwork:
    return ReferenceNetwork(work.request.qdq_onnx)


IMAGE = tiny.images(1)


def test_tensors_are_the_activations_of_the_table_in_graph_order(work, network) -> None:
    activations = load_table(work.request.quant_table).with_role("activation")
    assert network.names == tuple(one.name for one in activations)


def test_operators_are_named_through_what_is_fused(network) -> None:
    assert network.operators == {
        "image": "input",
        "stem_act": "Conv+Relu",
        "spread_act": "Conv+Relu",
        "project": "Conv",
        "added": "Add",
        "wide_act": "Conv+Relu",
        "pooled": "GlobalAveragePool",
        "flat": "Flatten",
        "logits": "Gemm",
    }


def test_a_clamp_with_constants_is_named_like_any_other(tmp_path: Path) -> None:
    work = tiny.write_tiny(tmp_path / "relu6", tiny.qdq_model(activation="Clip"))
    assert ReferenceNetwork(work.request.qdq_onnx).operators["wide_act"] == "Conv+Clip"


def test_logits_are_those_of_the_graph(work, network) -> None:
    found = network.run(IMAGE, {})["logits"]
    np.testing.assert_array_equal(found, tiny.reference_logits(work.request.qdq_onnx, IMAGE))


def test_every_value_lies_on_the_grid_of_the_table(work, network) -> None:
    table = load_table(work.request.quant_table).by_name()
    steps = np.concatenate([value.ravel() / table[name].scale[0] for name, value in network.run(IMAGE, {}).items()])
    np.testing.assert_allclose(steps, np.rint(steps), atol=1e-3)


def test_given_its_own_values_the_network_is_as_it_was(network) -> None:
    plain = network.run(IMAGE, {})
    again = network.run(IMAGE, plain)
    np.testing.assert_equal(again, plain)


def test_a_given_tensor_changes_what_reads_it_and_nothing_else(network) -> None:
    plain = network.run(IMAGE, {})
    changed = network.run(IMAGE, {**plain, "stem_act": np.zeros_like(plain["stem_act"])})
    moved = [name for name in network.names if not np.array_equal(changed[name], plain[name])]
    assert moved == ["spread_act", "added"]


def test_without_what_follows_a_given_tensor_changes_all_after_it(network) -> None:
    plain = network.run(IMAGE, {})
    changed = network.run(IMAGE, {"stem_act": np.zeros_like(plain["stem_act"])})
    moved = [name for name in network.names if not np.array_equal(changed[name], plain[name])]
    assert moved == list(network.names[2:])


def test_a_tensor_that_two_pairs_round_is_given_to_both_readers(tmp_path: Path) -> None:
    model = tiny.qdq_model()
    pair = [node for node in model.graph.node if node.name in {"stem_act_Q", "stem_act_DQ"}]
    added = next(node for node in model.graph.node if node.name == "added")
    place = list(model.graph.node).index(added)
    model.graph.node.insert(place, helper.make_node("DequantizeLinear", ["again_q", *pair[1].input[1:]], ["again"]))
    model.graph.node.insert(place, helper.make_node("QuantizeLinear", pair[0].input, ["again_q"]))
    added.input[1] = "again"
    graph.save(model, tmp_path / "qdq.onnx")
    network = ReferenceNetwork(tmp_path / "qdq.onnx")
    plain = network.run(IMAGE, {})
    changed = network.run(IMAGE, {**plain, "stem_act": np.zeros_like(plain["stem_act"])})
    assert [name for name in plain if not np.array_equal(changed[name], plain[name])] == ["spread_act", "added"]
