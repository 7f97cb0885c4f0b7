import pytest

from mobilekd import graph
from mobilekd.backends import _readback
from mobilekd.backends.tensorrt import Tensorrt
from mobilekd.errors import ConfigError, StageError
from mobilekd.profile import Deployment, Target
from mobilekd.quant_table import QuantTable, load_table, save_table
from tests.backends import tiny

INT8 = Deployment(backend="tensorrt")
RTX = Target(os="linux", abi="x86_64", compute_capability="8.6")
JETSON = Target(os="linux", abi="aarch64", compute_capability="8.7")


@pytest.fixture
def work(tmp_path):
    return tiny.write_tiny(tmp_path / "tiny")


def test_network_given_to_the_builder_has_int8_inputs_everywhere(work):
    facts = Tensorrt().convert(work.for_(INT8, RTX))

    assert (facts.float_ops, facts.other_float_ops, facts.int8_tensors) == ((), (), 5)


def test_float_model_in_an_int8_deployment_reports_its_layers(work):
    model = graph.load(work.request.stripped_onnx)
    graph.save(model, work.request.qdq_onnx)
    save_table(QuantTable(()), work.request.quant_table)

    facts = Tensorrt().convert(work.for_(INT8, RTX))

    assert facts.float_ops == ("stem", "spread", "project", "wide", "classifier")


def test_engine_is_built_and_says_that_it_was_not_run(work):
    facts = Tensorrt().convert(work.for_(INT8, RTX))

    assert (facts.file, facts.runnable, facts.build_command) == ("tensorrt-int8.engine", False, "")
    assert facts.note.startswith("built, not run: ")
    assert "compute capability 8.6" in facts.note


def test_engine_is_refused_on_this_machine_with_its_note(work):
    facts = Tensorrt().convert(work.for_(INT8, RTX))

    with pytest.raises(StageError, match="built, not run"):
        Tensorrt().open(work.request.out / facts.file, facts, kernels="default", threads=1)


def test_engine_is_not_traced_for_the_same_reason(work):
    facts = Tensorrt().convert(work.for_(INT8, RTX))

    with pytest.raises(StageError, match="built, not run"):
        Tensorrt().trace(work.request.out / facts.file, facts, tiny.images(1), ["added"], kernels="default")


def test_bias_changed_after_training_is_caught_with_the_tensor_named(work, monkeypatch):
    trained = _readback.trained(work.request.qdq_onnx, load_table(work.request.quant_table))
    moved = {**trained.biases, "classifier.bias": trained.biases["classifier.bias"] + 1}
    monkeypatch.setattr(_readback, "trained", lambda qdq_onnx, table: _readback.Trained(trained.weights, moved))

    with pytest.raises(StageError, match=r"bias of 'classifier\.bias' differs"):
        Tensorrt().convert(work.for_(INT8, RTX))


def test_jetson_gets_the_qdq_graph_and_the_command_that_builds_it(work):
    facts = Tensorrt().convert(work.for_(INT8, JETSON))

    assert facts.build_command == (
        "trtexec --onnx=tensorrt-int8.onnx --stronglyTyped --saveEngine=tensorrt-int8.engine"
    )
    assert facts.note.startswith("packed, not built: ")
    assert (work.request.out / facts.file).read_bytes() == work.request.qdq_onnx.read_bytes()


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_conversion_in_two_folders_gives_the_same_bytes(tmp_path, precision):
    works = [tiny.write_tiny(tmp_path / name) for name in ("here", "there")]
    deployment = Deployment(backend="tensorrt", precision=precision)
    files = [one.request.out / Tensorrt().convert(one.for_(deployment, RTX)).file for one in works]

    assert files[0].read_bytes() == files[1].read_bytes()


def test_table_changed_after_training_is_caught_with_the_tensor_named(work):
    table = load_table(work.request.quant_table)
    moved = [tiny.rescaled(one, 2.0) if one.name == "logits" else one for one in table.tensors]
    save_table(QuantTable(tuple(moved)), work.request.quant_table)

    with pytest.raises(StageError, match="scale of 'logits' differs"):
        Tensorrt().convert(work.for_(INT8, RTX))


def test_unsupported_operator_is_told_in_the_parsers_words(work):
    model = graph.load(work.request.float_onnx)
    model.graph.node[0].op_type = "Frobnicate"
    model.graph.node[0].domain = "com.example"
    work.request.float_onnx.write_bytes(model.SerializeToString())

    with pytest.raises(StageError, match="Frobnicate 'stem'"):
        Tensorrt().convert(work.for_(Deployment(backend="tensorrt", precision="fp32"), RTX))


def test_compute_capability_that_no_provider_builds_for_lists_the_choices(work):
    with pytest.raises(ConfigError, match=r"'6\.1'") as caught:
        Tensorrt().convert(work.for_(INT8, RTX.model_copy(update={"compute_capability": "6.1"})))

    assert "8.6" in caught.value.hint


def test_int8_io_is_refused_with_the_option_that_helps(work):
    with pytest.raises(ConfigError) as caught:
        Tensorrt().convert(work.for_(Deployment(backend="tensorrt", io="int8"), RTX))

    assert 'io = "float32"' in caught.value.hint
