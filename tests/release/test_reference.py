from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mobilekd.backend import DeployedFacts, TensorFacts
from mobilekd.preprocessing import normalize
from mobilekd.quant_table import QuantTable, TensorQuant
from mobilekd.release.reference import HOST, error_steps, logit_step

LOGITS = np.array([-1.0, 4.1], np.float32)


def _facts(scale: float | None) -> DeployedFacts:
    output = TensorFacts("out", (1, 2), "float32", "NC", scale)
    return DeployedFacts(
        deployment={},
        file="x",
        runnable=True,
        input=output,
        output=output,
        float_ops=(),
        other_float_ops=(),
        int8_tensors=0,
        tools={},
    )


def _table(*names: str) -> QuantTable:
    return QuantTable(tuple(TensorQuant(name, "activation", "int8", (0.5,), (0,), None, -128, 127) for name in names))


def test_step_of_an_int8_output_is_its_own_scale():
    assert logit_step(_table("logits"), _facts(0.25), LOGITS) == 0.25


def test_step_of_a_float_output_is_that_of_the_logits():
    assert logit_step(_table("input", "logits", "other"), _facts(None), LOGITS) == 0.5


def test_step_without_a_quantized_last_layer_is_a_255th_of_the_spread():
    assert logit_step(_table("input"), _facts(None), LOGITS) == pytest.approx(0.02)


def test_error_counts_steps_of_the_worst_logit():
    assert error_steps(LOGITS, LOGITS + np.array([0.5, -0.25], np.float32), 0.25) == pytest.approx(2.0)


def test_a_constant_image_at_the_mean_is_zero():
    image = np.full((2, 2, 1), 51, np.uint8)
    assert normalize(image[None], (0.2,), (0.5,)) == pytest.approx(np.zeros((1, 1, 2, 2)), abs=1e-6)


def test_an_unknown_backend_is_missing_and_not_an_error():
    assert HOST.missing("../../evil") == "this version of mobilekd has no backend '../../evil'"


@pytest.mark.slow
def test_the_host_runs_a_model_in_a_process_of_its_own(tmp_path: Path):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    weights = np.arange(24, dtype=np.float32).reshape(12, 2)
    nodes = [
        onnx.helper.make_node("Flatten", ["image"], ["flat"]),
        onnx.helper.make_node("MatMul", ["flat", "weights"], ["logits"]),
    ]
    ends = [onnx.helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, (1, 3, 2, 2))]
    outs = [onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, (1, 2))]
    graph = onnx.helper.make_graph(nodes, "tiny", ends, outs, [onnx.numpy_helper.from_array(weights, "weights")])
    opset = [onnx.helper.make_opsetid("", 17)]
    onnx.save(onnx.helper.make_model(graph, ir_version=8, opset_imports=opset), tmp_path / "tiny.onnx")
    facts = replace(
        _facts(None),
        deployment={"backend": "onnxruntime", "precision": "fp32", "io": "float32", "ships": True},
        input=TensorFacts("image", (1, 3, 2, 2), "float32", "NCHW"),
        output=TensorFacts("logits", (1, 2), "float32", "NC"),
    )
    logits = HOST.logits("onnxruntime", tmp_path / "tiny.onnx", facts, np.ones((1, 3, 2, 2), np.float32), tmp_path)
    assert logits.tolist() == [132.0, 144.0]
    assert HOST.parity_steps("onnxruntime") > 0
