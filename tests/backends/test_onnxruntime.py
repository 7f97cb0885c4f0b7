import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from mobilekd import graph
from mobilekd.backend import DeployedFacts
from mobilekd.backends import _ort_graph
from mobilekd.backends.onnxruntime import Onnxruntime
from mobilekd.errors import StageError
from mobilekd.profile import Deployment
from mobilekd.quant_table import QuantTable, load_table, save_table
from tests.backends import tiny

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
