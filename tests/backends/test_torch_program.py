"""The torch program of an ONNX graph computes what the graph computes."""

import numpy as np
import pytest
import torch
from onnx import ModelProto, helper

from mobilekd.backends import _torch_program, _torch_rules
from mobilekd.backends._torch_program import TorchProgram
from mobilekd.errors import StageError
from tests.backends import operators, tiny
from tests.backends.operator_cases import CASES, Case
from tests.backends.small_graphs import float_graph, rounded_graph, run_nodes

# Known to the TFLite writer and without a torch form: attributes and operators that torch's exporter does not write.
KNOWN = sorted(name for name, case in CASES.items() if {op for op, _, _ in case.steps} <= _torch_rules.RULES.keys())


def image_of(case: Case) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.random.default_rng(1).normal(size=case.shape).astype(np.float32)


def computed(model: ModelProto, image: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> torch.Tensor:
    with torch.no_grad():
        return TorchProgram(model, ["logits"])(torch.from_numpy(image))[0]


@pytest.mark.parametrize("name", KNOWN)
def test_an_operator_computes_what_onnx_runtime_does(name: str) -> None:
    case = CASES[name]
    model, image = float_graph(case.steps, case.constants, case.shape), image_of(case)
    wanted = run_nodes(model, image)["logits"]
    np.testing.assert_allclose(computed(model, image), wanted, rtol=0, atol=1e-5 * float(np.abs(wanted).max()))


@pytest.mark.parametrize("name", KNOWN)
def test_a_rounded_operator_computes_what_onnx_runtime_does(name: str) -> None:
    case = CASES[name]
    image = image_of(case)
    model = rounded_graph(case.steps, case.constants, case.shape, image, unrounded=case.unrounded)
    wanted = run_nodes(model, image)["logits"]
    found = np.asarray(computed(model, image))
    assert (
        np.abs(found - wanted) > 1e-5 * float(np.abs(wanted).max())
    ).mean() <= 0.005  # ties, by another order of sums


def test_a_tensor_with_two_readers_is_dequantized_for_each() -> None:
    program = _torch_program.exported(tiny.qdq_model(), ["logits"])
    reads = [node.args[0] for node in program.graph.nodes if "dequantize_per_tensor" in str(node.target)]
    assert len(reads) > len(set(reads))
    assert all(len(node.users) == 1 for node in program.graph.nodes if "dequantize_per_tensor" in str(node.target))


def test_every_operator_of_the_program_names_the_onnx_tensor_behind_it() -> None:
    program = _torch_program.exported(tiny.qdq_model(), ["logits"])
    named = dict(_torch_program.origins(list(program.graph.nodes)))
    told = {str(node.target): name for node, name in named.items() if "aten" in str(node.target)}
    assert told == {
        "aten.conv2d.default": "wide",
        "aten.relu.default": "wide_act",
        "aten.add.Tensor": "added",
        "aten.mean.dim": "pooled",
        "aten.reshape.default": "flat",
        "aten.linear.default": "classifier",
    }


def test_scales_of_the_program_are_those_of_the_graph_to_the_last_bit() -> None:
    program = _torch_program.exported(tiny.qdq_model(), ["logits"])
    scales = {node.args[1] for node in program.graph.nodes if "quantize_per_tensor" in str(node.target)}
    model = tiny.qdq_model()
    stored = {one.name: one for one in model.graph.initializer}
    names = {node.input[1] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    assert scales == {float(np.frombuffer(stored[name].raw_data, np.float32)[0]) for name in names}


def test_an_operator_without_a_torch_form_is_told_with_those_that_have_one() -> None:
    node = helper.make_node("Frobnicate", ["image"], ["logits"], name="odd")
    with pytest.raises(StageError, match=r"ONNX operator Frobnicate \(odd\)") as caught:
        _torch_rules.check(node)
    assert "Conv" in caught.value.hint


def test_the_rules_know_no_operator_that_onnx_has_not() -> None:
    import onnx

    assert set(_torch_rules.RULES) <= {schema.name for schema in onnx.defs.get_all_schemas_with_history()}


def test_layers_asked_for_in_float_have_their_weight_as_int8_times_scale() -> None:
    model = tiny.qdq_model()
    image = torch.from_numpy(tiny.images(1))
    program = TorchProgram(model, ["logits"], in_float=["wide"])
    with torch.no_grad():
        assert torch.equal(program(image)[0], TorchProgram(model, ["logits"])(image)[0])
    exported = _torch_program.exported(model, ["logits"], in_float=["wide"])
    per_channel = [node for node in exported.graph.nodes if "dequantize_per_channel" in str(node.target)]
    assert len(per_channel) == 4


def test_a_clamp_between_two_scales_is_written_with_what_xnnpack_does_not_fuse() -> None:
    model = operators.network("relu_with_a_scale_of_its_own")
    program = _torch_program.exported(model, ["logits"])
    written = [str(node.target) for node, name in _torch_program.origins(list(program.graph.nodes)) if name == "x"]
    assert "aten.maximum.default" in written
    assert "aten.relu.default" not in written


def test_a_clamp_between_two_scales_computes_what_it_did() -> None:
    model, image = operators.network("relu_with_a_scale_of_its_own"), tiny.images(1, seed=2)
    np.testing.assert_array_equal(computed(model, image), run_nodes(model, image)["logits"])
