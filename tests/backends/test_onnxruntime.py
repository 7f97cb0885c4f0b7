from dataclasses import replace

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from mobilekd import graph
from mobilekd.backend import DeployedFacts
from mobilekd.backends import _ort_check, _ort_graph, _readback
from mobilekd.backends.onnxruntime import Onnxruntime
from mobilekd.errors import StageError
from mobilekd.profile import Deployment
from mobilekd.quant_table import QuantTable, load_table, save_table
from mobilekd.reference_network import ReferenceNetwork
from tests.backends import operators, tiny

INT8 = Deployment(backend="onnxruntime")
INT8_IO = Deployment(backend="onnxruntime", io="int8")


@pytest.fixture
def work(tmp_path):
    return tiny.write_tiny(tmp_path / "tiny")


def error_in_steps(work: tiny.Tiny, facts: DeployedFacts) -> float:
    batch = tiny.images(50, seed=2)
    session = Onnxruntime().open(work.request.out / facts.file, facts, kernels="default", threads=1)
    reference = tiny.reference_logits(work.request.qdq_onnx, batch)
    return float(
        np.abs(tiny.session_logits(session, batch) - reference).max() / tiny.output_step(work.request.qdq_onnx)
    )


def test_int8_logits_are_within_one_step_of_the_trained_graph(work):
    facts = Onnxruntime().convert(work.for_(INT8))

    assert error_in_steps(work, facts) <= 1.001


def test_every_operator_runs_in_integers(work):
    facts = Onnxruntime().convert(work.for_(INT8))

    assert (facts.float_ops, facts.other_float_ops, facts.int8_tensors) == ((), (), 5)


def test_relu6_becomes_integer_clip_without_changing_a_logit(tmp_path):
    work = tiny.write_tiny(tmp_path / "relu6", tiny.qdq_model(activation="Clip"))
    ready = _ort_graph.fuse_ready(graph.load(work.request.qdq_onnx))
    graph.save(ready, tmp_path / "ready.onnx")
    batch = tiny.images(50)

    found = tiny.reference_logits(tmp_path / "ready.onnx", batch)

    np.testing.assert_array_equal(found, tiny.reference_logits(work.request.qdq_onnx, batch))


def test_rewritten_graph_gives_the_same_logits_bit_by_bit(work, tmp_path):
    graph.save(_ort_graph.fuse_ready(graph.load(work.request.qdq_onnx)), tmp_path / "ready.onnx")
    batch = tiny.images(50)

    found = tiny.reference_logits(tmp_path / "ready.onnx", batch)

    np.testing.assert_array_equal(found, tiny.reference_logits(work.request.qdq_onnx, batch))


def test_int8_io_gives_the_same_logits_as_float_io(work):
    backend, batch = Onnxruntime(), tiny.images(20)
    models = [backend.convert(work.for_(one)) for one in (INT8, INT8_IO)]
    opened = [backend.open(work.request.out / one.file, one, kernels="default", threads=1) for one in models]

    float_io, int8_io = (tiny.session_logits(one, batch) for one in opened)

    np.testing.assert_array_equal(int8_io, float_io)


def test_int8_io_is_told_with_its_scale(work):
    facts = Onnxruntime().convert(work.for_(INT8_IO))

    assert (facts.input.dtype, facts.input.zero_point, facts.output.dtype) == ("int8", 0, "int8")
    assert facts.input.scale == pytest.approx(2 / 127)


def test_activation_without_integer_kernel_is_listed_and_its_layer_counts_as_float(tmp_path):
    work = tiny.write_tiny(tmp_path / "swish", tiny.qdq_model(activation="HardSwish"))

    facts = Onnxruntime().convert(work.for_(INT8))

    assert facts.float_ops == ("stem", "spread", "wide")
    assert "Mul stem_act" in facts.other_float_ops


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_float_precisions_keep_the_float_logits(work, precision):
    batch = tiny.images(8)
    facts = Onnxruntime().convert(work.for_(Deployment(backend="onnxruntime", precision=precision)))
    session = Onnxruntime().open(work.request.out / facts.file, facts, kernels="default", threads=1)

    found = tiny.session_logits(session, batch)

    np.testing.assert_allclose(found, tiny.reference_logits(work.request.float_onnx, batch), atol=2e-3)


def test_fp16_file_holds_half_the_bytes_of_weights(work):
    facts = Onnxruntime().convert(work.for_(Deployment(backend="onnxruntime", precision="fp16")))

    model = onnx.load(str(work.request.out / facts.file))

    assert {one.data_type for one in model.graph.initializer} == {TensorProto.FLOAT16}
    assert facts.input.dtype == "float32"


@pytest.mark.parametrize("deployment", [INT8, INT8_IO, Deployment(backend="onnxruntime", precision="fp16")])
def test_conversion_in_two_folders_gives_the_same_bytes(tmp_path, deployment):
    works = [tiny.write_tiny(tmp_path / name) for name in ("here", "there")]
    files = [one.request.out / Onnxruntime().convert(one.for_(deployment)).file for one in works]

    assert files[0].read_bytes() == files[1].read_bytes()


def test_table_changed_after_training_is_caught_with_the_tensor_named(work):
    table = load_table(work.request.quant_table)
    moved = [tiny.rescaled(one, 2.0) if one.name == "added" else one for one in table.tensors]
    save_table(QuantTable(tuple(moved)), work.request.quant_table)

    with pytest.raises(StageError, match="scale of 'added' differs"):
        Onnxruntime().convert(work.for_(INT8))


def test_one_changed_weight_is_caught_with_the_tensor_named(work):
    file = work.request.out / Onnxruntime().convert(work.for_(INT8)).file
    table = load_table(work.request.quant_table)
    trained = _readback.trained(work.request.qdq_onnx, table)
    weight = trained.weights["wide.weight"].copy()
    weight.reshape(-1)[3] ^= 1

    with pytest.raises(StageError, match=r"int8 weights of 'wide\.weight' differs: element 3"):
        _ort_check.check_against_table(
            file, table, replace(trained, weights={**trained.weights, "wide.weight": weight})
        )


def test_one_changed_bias_is_caught_with_the_tensor_named(work):
    file = work.request.out / Onnxruntime().convert(work.for_(INT8)).file
    table = load_table(work.request.quant_table)
    trained = _readback.trained(work.request.qdq_onnx, table)
    bias = trained.biases["spread.bias"] + 1

    with pytest.raises(StageError, match=r"bias of 'spread\.bias' differs: element 0"):
        _ort_check.check_against_table(file, table, replace(trained, biases={**trained.biases, "spread.bias": bias}))


def test_trace_reads_what_the_trained_graph_computes(work):
    facts, image = Onnxruntime().convert(work.for_(INT8)), tiny.images(1, seed=2)
    reference = ReferenceNetwork(work.request.qdq_onnx)

    traced = Onnxruntime().trace(work.request.out / facts.file, facts, image, reference.names, kernels="default")

    expected = reference.run(image, {})
    assert {name: np.abs(traced[name] - expected[name]).max() for name in expected} == dict.fromkeys(expected, 0)


def test_trace_refuses_a_file_that_runs_other_kernels_with_its_tensors_as_outputs(work, monkeypatch):
    facts = Onnxruntime().convert(work.for_(INT8))
    counts = iter(({"QLinearConv": 4}, {"QLinearConv": 3}))
    monkeypatch.setattr(_ort_check, "integer_kernels", lambda optimized: next(counts))

    with pytest.raises(StageError, match="can't be traced"):
        Onnxruntime().trace(work.request.out / facts.file, facts, tiny.images(1), ["added"], kernels="default")


def test_integer_softmax_of_onnx_runtime_is_more_than_a_tie_off(tmp_path):
    """The reason for the fence around Softmax: when this fails, a new version mended it and the fence can go."""
    qdq = operators.network("softmax")
    graph.save(qdq, tmp_path / "qdq.onnx")
    batch = tiny.images(20, seed=2)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    fused = ort.InferenceSession(str(tmp_path / "qdq.onnx"), options, providers=["CPUExecutionProvider"])

    found = np.concatenate([fused.run(None, {"image": image[None]})[0] for image in batch])

    assert not np.array_equal(found, tiny.reference_logits(tmp_path / "qdq.onnx", batch))


def test_tensor_missing_from_the_file_is_named(work):
    table = load_table(work.request.quant_table)
    save_table(QuantTable((*table.tensors, tiny.renamed(table.tensors[0], "ghost"))), work.request.quant_table)

    with pytest.raises(StageError, match="'ghost' is in the quantization table and not in the file"):
        Onnxruntime().convert(work.for_(INT8))


def test_unsupported_operator_is_one_clear_error(work):
    model = graph.load(work.request.float_onnx)
    model.graph.node[0].domain = "com.example"
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    work.request.float_onnx.write_bytes(model.SerializeToString())

    with pytest.raises(StageError, match=r"ONNX Runtime refused onnxruntime-fp32\.onnx"):
        Onnxruntime().convert(work.for_(Deployment(backend="onnxruntime", precision="fp32")))
