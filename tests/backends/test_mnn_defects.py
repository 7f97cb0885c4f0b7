"""What MNN 3.6.1 gets wrong, and the reason for each rewrite. A failure here says that a new version mended it.

Each test takes one rewrite away and looks at what is left.
"""

import subprocess
import sys

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from mobilekd import graph
from mobilekd.backends import _mnn_clamps, _mnn_describe, _mnn_graph, _mnn_rewrite, mnn
from mobilekd.backends._mnn_file import read_mnn
from mobilekd.backends.mnn import Mnn
from mobilekd.errors import StageError
from mobilekd.profile import Deployment
from mobilekd.quant_table import QuantTable
from tests.backends import operators, tiny
from tests.backends.test_operators import own_errors

INT8 = Deployment(backend="mnn")


def convert(tmp_path, operator):
    work = tiny.write_tiny(tmp_path / "net", operators.network(operator))
    return work, Mnn().convert(work.for_(INT8))


def share_off(tmp_path, operator, tensor):
    """Return the share of a tensor's values that are not what the trained operator makes of the file's inputs."""
    work, facts = convert(tmp_path, operator)
    return float((own_errors(work, Mnn(), facts, tiny.images(3, seed=2))[tensor] > 0.501).mean())


@pytest.mark.parametrize("operator", ["average_pool_without_pads", "max_pool_of_negative_values"])
def test_int8_pool_is_wrong(tmp_path, monkeypatch, operator):
    monkeypatch.setattr(_mnn_rewrite, "pools_in_float", lambda model, table: model)

    assert share_off(tmp_path, operator, "x") > 0.3


def test_depthwise_bias_loses_its_fraction(tmp_path, monkeypatch):
    monkeypatch.setattr(_mnn_rewrite, "_biases_that_may_be_cut_off", lambda model, table: model)

    assert share_off(tmp_path, "depthwise_with_small_steps", "tested") > 0.001


def test_float_operators_hand_on_what_the_table_rounds(tmp_path, monkeypatch):
    monkeypatch.setattr(_mnn_rewrite, "_round_between_floats", lambda model, table, layers: model)

    assert share_off(tmp_path, "squeeze_excite_sigmoid", "squeezed") > 0.01


def test_converter_leaves_grouped_convolutions_float(tmp_path, monkeypatch):
    monkeypatch.setattr(_mnn_rewrite, "write_out_groups", lambda model, layers: (model, tuple(layers)))

    with pytest.raises(StageError, match=r"'tested\.weight' is in the quantization table and not in the file"):
        convert(tmp_path, "conv_grouped")


@pytest.mark.parametrize("operator", ["conv_clipped_at_one", "relu_with_a_scale_of_its_own", "add_constant_by_channel"])
def test_converter_leaves_a_layer_float_whose_output_it_does_not_find(tmp_path, monkeypatch, operator):
    monkeypatch.setattr(_mnn_rewrite, "clamps_as_trained", lambda model, table, layers: (model, tuple(layers)))

    with pytest.raises(StageError, match="is in the quantization table and not in the file"):
        convert(tmp_path, operator)


@pytest.mark.parametrize("operator", ["second_rounding", "pad_behind_a_second_rounding"])
def test_converter_drops_a_second_rounding_in_front_of_a_layer(tmp_path, monkeypatch, operator):
    monkeypatch.setattr(_mnn_clamps, "_second_roundings", lambda model, quants: ())

    with pytest.raises(StageError, match="the scale of 'x' differs"):
        convert(tmp_path, operator)


def test_converter_leaves_layers_float_that_share_a_weight(tmp_path, monkeypatch):
    monkeypatch.setattr(mnn, "_OPTIONS", {})

    with pytest.raises(StageError, match=r"'tested\.weight' is in the quantization table and not in the file"):
        convert(tmp_path, "conv_of_a_shared_weight")


def test_converter_rounds_large_linear_layers_before_it_reads_their_weights(tmp_path):
    work = tiny.write_tiny(tmp_path / "net", operators.network("linear_of_many_weights"))
    convert_here = f"import os, sys, _tools; os.chdir({str(work.request.work)!r}); _tools.mnnconvert(sys.argv)"
    Mnn().convert(work.for_(INT8))
    (work.request.work / ".__convert_external_data.bin").rmdir()
    file = tmp_path / "large.mnn"
    arguments = ["-f", "ONNX", "--modelFile", "source.onnx", "--MNNModel", str(file), "--bizCode", "MNN"]
    arguments += ["--compressionParamsFile", "compression.json"]
    subprocess.run([sys.executable, "-c", convert_here, *arguments], check=True, capture_output=True)

    written = {op.name: op.weights for op in read_mnn(file).ops if op.weight_scales is not None}

    assert [name for name, weights in written.items() if weights is None] == ["tested__matmul_converted"]


def test_product_without_scales_of_its_own_runs_in_float(tmp_path, monkeypatch):
    monkeypatch.setattr(_mnn_describe, "describe", lambda path, quants: None)

    _, facts = convert(tmp_path, "squeeze_excite_sigmoid")

    assert "BinaryOp x" in facts.other_float_ops


def test_depthwise_scale_below_a_millionth_is_replaced(tmp_path, monkeypatch):
    monkeypatch.setattr(_mnn_graph, "check_small_scales", lambda layers, table, trained: None)
    qdq = operators.network("depthwise_1x1")
    for one in qdq.graph.initializer:
        if one.name in ("tested.scale", "tested_scale", "tested.bias"):
            one.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(one) * np.float32(1e-4), one.name))
    work = tiny.write_tiny(tmp_path / "net", graph.snap_biases(qdq))

    errors = own_errors(work, Mnn(), Mnn().convert(work.for_(INT8)), tiny.images(3, seed=2))

    assert errors["tested"].max() > 10


def test_silu_behind_a_reshape_shifts_the_names_of_tensors(tmp_path):
    work, facts = convert(tmp_path, "tokens")
    file = read_mnn(work.request.out / facts.file)

    assert "shaped" in file.tensors
    assert "shaped" not in _mnn_graph.tensors_by_name(file)


def test_rounding_by_quantize_linear_is_dropped_with_all_behind_it(tmp_path):
    work = tiny.write_tiny(tmp_path / "net")
    shape = [1, 37, 33]
    nodes = [
        helper.make_node("QuantizeLinear", ["image", "scale", "zero"], ["integers"], name="integers"),
        helper.make_node("DequantizeLinear", ["integers", "scale", "zero"], ["rounded"], name="rounded"),
        helper.make_node("Tanh", ["rounded"], ["logits"], name="logits"),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("image", "logits")]
    values = [numpy_helper.from_array(np.float32(0.01), "scale"), numpy_helper.from_array(np.int8(0), "zero")]
    made = helper.make_graph(nodes, "rounding", ends[:1], ends[1:], values)
    source = work.request.work / "rounding.onnx"
    graph.save(graph.canonicalize(helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)])), source)
    file = tmp_path / "rounding.mnn"

    mnn._convert(work.for_(INT8), source, _mnn_graph.compression_params((), QuantTable(()), "0"), file)

    assert "logits" not in read_mnn(file).tensors
