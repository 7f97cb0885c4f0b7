import subprocess
import sys
from importlib import metadata

import numpy as np
import pytest

from mobilekd import graph
from mobilekd.backends import _mnn_graph, _mnn_layers, _mnn_rewrite, _readback
from mobilekd.backends._mnn_file import read_mnn
from mobilekd.backends.mnn import Mnn
from mobilekd.errors import ConfigError, StageError
from mobilekd.profile import Deployment
from mobilekd.quant_table import QuantTable, load_table
from tests.backends import operators, tiny

INT8 = Deployment(backend="mnn")


@pytest.fixture
def work(tmp_path):
    return tiny.write_tiny(tmp_path / "tiny")


def test_int8_logits_are_those_of_the_trained_graph(work):
    facts, batch = Mnn().convert(work.for_(INT8)), tiny.images(50, seed=2)
    session = Mnn().open(work.request.out / facts.file, facts, kernels="default", threads=1)

    error = np.abs(tiny.session_logits(session, batch) - tiny.reference_logits(work.request.qdq_onnx, batch))

    assert error.max() / tiny.output_step(work.request.qdq_onnx) <= 0.01


def test_every_layer_carries_int8_and_the_mean_in_float_is_listed(work):
    facts = Mnn().convert(work.for_(INT8))

    assert (facts.float_ops, facts.int8_tensors) == ((), 5)
    assert facts.other_float_ops == ("Pooling3D pooled",)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_float_precisions_keep_the_float_logits(work, precision):
    batch = tiny.images(8)
    facts = Mnn().convert(work.for_(Deployment(backend="mnn", precision=precision)))
    session = Mnn().open(work.request.out / facts.file, facts, kernels="default", threads=1)

    found = tiny.session_logits(session, batch)

    np.testing.assert_allclose(found, tiny.reference_logits(work.request.float_onnx, batch), atol=2e-3)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_conversion_in_two_folders_gives_the_same_bytes(tmp_path, precision):
    works = [tiny.write_tiny(tmp_path / name) for name in ("here", "there")]
    deployment = Deployment(backend="mnn", precision=precision)
    files = [one.request.out / Mnn().convert(one.for_(deployment)).file for one in works]

    assert files[0].read_bytes() == files[1].read_bytes()


def test_layer_without_scales_is_a_float_op_by_name(work):
    table = load_table(work.request.quant_table)
    known = tuple(one for one in table.tensors if one.name != "project.weight")
    layers = _mnn_layers.int8_layers(graph.load(work.request.stripped_onnx), QuantTable(known))

    assert [layer.node for layer in layers] == ["stem", "spread", "wide", "classifier"]


def read_back(work, file, *, table=None, trained=None):
    """Compare a file with a table and with trained integers; by default with those it was made of."""
    kept = load_table(work.request.quant_table)
    layers = _mnn_layers.int8_layers(graph.load(work.request.stripped_onnx), kept)
    layers = _mnn_rewrite.for_converter(graph.load(work.request.stripped_onnx), kept, layers)[1]
    trained = trained or _readback.trained(work.request.qdq_onnx, kept)
    _mnn_graph.check_against_table(file, read_mnn(file), layers, table or kept, trained)


def changed(integers, name):
    """Return a copy of integers by name, one of them moved by one."""
    copy = {**integers, name: integers[name].copy()}
    copy[name].reshape(-1)[3] += 1
    return copy


def test_table_changed_after_conversion_is_caught_with_the_tensor_named(work):
    file = work.request.out / Mnn().convert(work.for_(INT8)).file
    table = load_table(work.request.quant_table)
    moved = QuantTable(tuple(tiny.rescaled(one, 1.0001) if one.name == "added" else one for one in table.tensors))

    with pytest.raises(StageError, match="scale of 'added' differs"):
        read_back(work, file, table=moved)


def test_one_changed_weight_is_caught_with_the_tensor_named(work):
    file = work.request.out / Mnn().convert(work.for_(INT8)).file
    trained = _readback.trained(work.request.qdq_onnx, load_table(work.request.quant_table))
    trained = _readback.Trained(changed(trained.weights, "wide.weight"), trained.biases)

    with pytest.raises(StageError, match=r"int8 weights of 'wide\.weight' differs: element 3"):
        read_back(work, file, trained=trained)


def test_one_changed_bias_is_caught_with_the_tensor_named(work):
    file = work.request.out / Mnn().convert(work.for_(INT8)).file
    trained = _readback.trained(work.request.qdq_onnx, load_table(work.request.quant_table))
    trained = _readback.Trained(trained.weights, changed(trained.biases, "spread.bias"))

    with pytest.raises(StageError, match=r"bias of 'spread\.bias' differs: element 3"):
        read_back(work, file, trained=trained)


def test_one_changed_weight_in_a_group_is_caught(tmp_path):
    work = tiny.write_tiny(tmp_path / "net", operators.network("conv_grouped"))
    file = work.request.out / Mnn().convert(work.for_(INT8)).file
    trained = _readback.trained(work.request.qdq_onnx, load_table(work.request.quant_table))
    trained = _readback.Trained(changed(trained.weights, "tested.weight"), trained.biases)

    with pytest.raises(StageError, match=r"int8 weights of 'tested\.weight' differs: element 3"):
        read_back(work, file, trained=trained)


def test_scales_are_read_to_the_last_bit_of_float32(work):
    file = read_mnn(work.request.out / Mnn().convert(work.for_(INT8)).file)
    wanted = load_table(work.request.quant_table).by_name()["stem_act"].scale[0]

    assert file.quant[file.tensors.index("stem_act")] == (np.float32(wanted), 0)


def test_every_tensor_of_the_table_has_its_scale_in_the_file(work):
    file = read_mnn(work.request.out / Mnn().convert(work.for_(INT8)).file)
    table = load_table(work.request.quant_table).with_role("activation")

    found = {
        name: file.quant[index][0] for name, index in _mnn_graph.tensors_by_name(file).items() if index in file.quant
    }

    assert {one.name: np.float32(one.scale[0]) for one in table}.items() <= found.items()


def test_products_of_two_activations_are_listed_apart_from_layers(tmp_path):
    work = tiny.write_tiny(tmp_path / "net", operators.network("attention"))

    facts = Mnn().convert(work.for_(INT8))

    assert facts.float_ops == ()
    assert [one for one in facts.other_float_ops if one.startswith("MatMul")] == [
        "MatMul scores__unrounded",
        "MatMul mixed",
    ]


def test_transposed_convolution_is_a_float_layer_by_name(tmp_path):
    work = tiny.write_tiny(tmp_path / "net", operators.network("conv_transposed"))

    assert Mnn().convert(work.for_(INT8)).float_ops == ("tested",)


def test_depthwise_scale_that_mnn_would_replace_is_refused_with_the_weight_named(tmp_path):
    work = tiny.write_tiny(tmp_path / "net", operators.network("depthwise_1x1"))
    table = load_table(work.request.quant_table)
    factors = {"tested.weight": 1e-4, "tested": 1e-4}
    small = QuantTable(tuple(tiny.rescaled(one, factors.get(one.name, 1)) for one in table.tensors))
    layers = _mnn_layers.int8_layers(graph.load(work.request.stripped_onnx), small)

    with pytest.raises(StageError, match=r"'tested\.weight': MNN computes depthwise channels"):
        _mnn_graph.check_small_scales(layers, small, _readback.trained(work.request.qdq_onnx, table))


def test_converter_that_aborts_is_one_clear_error_and_this_process_lives(work):
    work.request.stripped_onnx.write_bytes(work.request.qdq_onnx.read_bytes())

    with pytest.raises(StageError, match="was ended by SIGABRT"):
        Mnn().convert(work.for_(INT8))


def test_unsupported_operator_is_named_with_the_log(work):
    model = graph.load(work.request.float_onnx)
    model.graph.node[0].op_type = "Frobnicate"
    work.request.float_onnx.write_bytes(model.SerializeToString())

    with pytest.raises(StageError, match="Frobnicate") as caught:
        Mnn().convert(work.for_(Deployment(backend="mnn", precision="fp32")))

    assert str(work.request.log) in caught.value.hint


def test_int8_io_is_refused_with_the_option_that_helps(work):
    with pytest.raises(ConfigError) as caught:
        Mnn().convert(work.for_(Deployment(backend="mnn", io="int8")))

    assert 'io = "float32"' in caught.value.hint


def test_import_and_load_start_no_program_and_open_no_connection(work):
    facts = Mnn().convert(work.for_(INT8))
    code = (
        "import sys\n"
        "seen = []\n"
        "watched = ('subprocess.Popen', 'os.system', 'os.exec', 'os.posix_spawn', 'socket.connect')\n"
        "sys.addaudithook(lambda event, _: seen.append(event) if event in watched else None)\n"
        "import MNN, MNN.nn, _tools\n"
        f"MNN.nn.load_module_from_file({str(work.request.out / facts.file)!r}, ['image'], ['logits'])\n"
        "print('SEEN', seen, [name for name in sys.modules if name.startswith('MNN.tools')])\n"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.endswith("SEEN [] []\n")


def test_opening_a_model_prints_nothing_on_stdout(work, capfd):
    facts = Mnn().convert(work.for_(INT8))
    Mnn().open(work.request.out / facts.file, facts, kernels="default", threads=1)

    assert capfd.readouterr().out == ""


def test_facts_carry_the_version_of_the_runtime(work):
    facts = Mnn().convert(work.for_(Deployment(backend="mnn", precision="fp32")))

    assert facts.tools["mnn"] == metadata.version("mnn")
