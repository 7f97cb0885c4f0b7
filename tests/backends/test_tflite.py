from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, numpy_helper

from mobilekd.backend import Conversion, DeployedFacts
from mobilekd.backends._tflite_check import check_against_table
from mobilekd.backends._tflite_graph import Graph, pack_model, read_model, view
from mobilekd.backends.tflite import Tflite
from mobilekd.errors import MissingToolError, StageError
from mobilekd.profile import Deployment
from mobilekd.quant_table import QuantTable, load_table, save_table
from mobilekd.reference_network import ReferenceNetwork
from tests.backends.tiny import (
    CLASSES,
    SIZE,
    Tiny,
    images,
    output_step,
    qdq_model,
    reference_logits,
    renamed,
    rescaled,
    session_logits,
    write_tiny,
)

Converted = tuple[Conversion, DeployedFacts]
Convert = Callable[..., Converted]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return write_tiny(tmp_path_factory.mktemp("tiny") / "network")


def convert(tiny: Tiny, out: Path, precision: Any = "int8", io: Any = "float32") -> Converted:
    out.mkdir(parents=True, exist_ok=True)
    request = replace(tiny.for_(Deployment(backend="tflite", precision=precision, io=io)), out=out)
    return request, Tflite().convert(request)


def logits(request: Conversion, facts: DeployedFacts, kernels: str, batch: NDArray[np.float32]) -> NDArray[np.float32]:
    return session_logits(Tflite().open(request.out / facts.file, facts, kernels=kernels, threads=1), batch)


def graph_of(request: Conversion, facts: DeployedFacts) -> Graph:
    return view(read_model(request.out / facts.file))


@pytest.mark.parametrize("activation", ["Relu", "Clip", "HardSwish", "Sigmoid"])
@pytest.mark.parametrize("io", ["float32", "int8"])
@pytest.mark.parametrize("kernels", Tflite.kernels)
def test_int8_is_within_one_output_step_of_the_trained_network(
    kernels: str, io: str, activation: str, tmp_path: Path
) -> None:
    tiny = write_tiny(tmp_path / "network", qdq_model(activation=activation))
    request, facts = convert(tiny, tmp_path / "out", io=io)
    batch = images(32, seed=9)
    off = logits(request, facts, kernels, batch) - reference_logits(request.qdq_onnx, batch)
    steps = np.rint(np.abs(off) / output_step(request.qdq_onnx))
    assert steps.max() <= 1
    assert steps.mean() < 0.1


def test_every_layer_runs_in_int8_and_only_the_mean_in_float(tiny: Tiny, tmp_path: Path) -> None:
    request, facts = convert(tiny, tmp_path)
    kinds = [op.kind for op in graph_of(request, facts).ops]
    assert kinds == [
        "QUANTIZE",
        "CONV_2D",
        "DEPTHWISE_CONV_2D",
        "CONV_2D",
        "ADD",
        "CONV_2D",
        "DEQUANTIZE",
        "MEAN",
        "QUANTIZE",
        "RESHAPE",
        "FULLY_CONNECTED",
        "DEQUANTIZE",
    ]
    assert (facts.float_ops, facts.other_float_ops) == ((), ("MEAN pooled_unrounded",))
    assert facts.note == "0 TRANSPOSE operators"


def test_int8_input_and_output_carry_the_scales_of_the_table(tiny: Tiny, tmp_path: Path) -> None:
    request, facts = convert(tiny, tmp_path, io="int8")
    table = load_table(request.quant_table).by_name()
    scales = [float(np.float32(table[name].scale[0])) for name in ("image", "logits")]
    assert (facts.input.name, facts.input.dtype, facts.input.layout) == ("image", "int8", "NHWC")
    assert (facts.input.shape, facts.output.shape) == ((1, SIZE, SIZE, 3), (1, CLASSES))
    assert [facts.input.scale, facts.output.scale] == scales
    assert (facts.output.name, facts.output.dtype, facts.output.zero_point) == ("logits", "int8", 0)


def test_float_input_and_output_have_the_names_and_their_int8_twins_a_suffix(tiny: Tiny, tmp_path: Path) -> None:
    request, facts = convert(tiny, tmp_path)
    names = {tensor.name: tensor.dtype for tensor in graph_of(request, facts).tensors}
    assert (names["image"], names["image_quantized"]) == ("float32", "int8")
    assert (names["logits"], names["logits_quantized"]) == ("float32", "int8")
    assert (facts.input.name, facts.output.name) == ("image", "logits")


@pytest.mark.parametrize("kernels", Tflite.kernels)
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-5), ("fp16", 2e-3)])
def test_a_float_file_agrees_with_the_float_network(
    precision: str, tolerance: float, kernels: str, tiny: Tiny, tmp_path: Path
) -> None:
    request, facts = convert(tiny, tmp_path, precision)
    batch = images(8, seed=9)
    wanted = reference_logits(request.float_onnx, batch)
    error = np.abs(logits(request, facts, kernels, batch) - wanted).max()
    assert error < tolerance * np.abs(wanted).max()
    assert (facts.input.dtype, facts.output.dtype, facts.int8_tensors) == ("float32", "float32", 0)


def test_fp16_stores_weights_in_half_the_bytes_and_computes_in_float32(tiny: Tiny, tmp_path: Path) -> None:
    request, facts = convert(tiny, tmp_path, "fp16")
    graph = graph_of(request, facts)
    halves = {tensor.name for tensor in graph.tensors if tensor.dtype == "float16"}
    assert halves == {f"{layer}.weight" for layer in ("stem", "spread", "project", "wide", "classifier")}
    assert all(tensor.data is not None for tensor in graph.tensors if tensor.dtype == "float16")


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_two_conversions_make_the_same_bytes(precision: str, tiny: Tiny, tmp_path: Path) -> None:
    one, two = (convert(tiny, tmp_path / name, precision)[0].out / "model.tflite" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()


def test_a_layer_with_float_weights_is_counted_and_the_rest_stays_int8(tmp_path: Path) -> None:
    tiny = write_tiny(tmp_path / "network", with_float_weight(qdq_model(), "project"))
    request, facts = convert(tiny, tmp_path / "out")
    batch = images(16, seed=9)
    off = logits(request, facts, "builtin", batch) - reference_logits(request.qdq_onnx, batch)
    assert facts.float_ops == ("project_unrounded",)
    assert np.rint(np.abs(off) / output_step(request.qdq_onnx)).max() <= 1


def with_float_weight(model: ModelProto, layer: str) -> ModelProto:
    """Return the model with the real weights of a layer in place of its int8 ones."""
    parts = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
    real = parts[f"{layer}.weight"] * parts[f"{layer}.scale"].reshape(-1, 1, 1, 1)
    kept = [node for node in model.graph.node if node.output[0] != f"{layer}_w"]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    model.graph.initializer.append(numpy_helper.from_array(real.astype(np.float32), f"{layer}_w"))
    return model


@pytest.mark.parametrize("kernels", Tflite.kernels)
def test_a_trace_shows_each_tensor_of_the_table_as_onnx_lays_it_out(kernels: str, tiny: Tiny, tmp_path: Path) -> None:
    request, facts = convert(tiny, tmp_path)
    network, image = ReferenceNetwork(request.qdq_onnx), images(1, seed=9)
    model = request.out / facts.file
    traced = Tflite().trace(model, facts, image, [*network.names, "no such tensor"], kernels=kernels)
    wanted = network.run(image, traced)
    assert list(traced) == list(network.names)
    assert {name: value.shape for name, value in traced.items()} == {k: v.shape for k, v in wanted.items()}
    scales = load_table(request.quant_table).by_name()
    assert max(np.rint(np.abs(traced[k] - wanted[k]) / scales[k].scale[0]).max() for k in traced) <= 1


def test_a_trace_of_an_int8_input_is_the_rounded_image(tiny: Tiny, tmp_path: Path) -> None:
    request, facts = convert(tiny, tmp_path, io="int8")
    image = images(1, seed=9)
    traced = Tflite().trace(request.out / facts.file, facts, image, ["image", "logits"], kernels="xnnpack")
    scale = np.float32(load_table(request.quant_table).by_name()["image"].scale[0])
    np.testing.assert_array_equal(traced["image"], np.clip(np.rint(image / scale), -128, 127) * scale)


def test_a_file_alone_says_what_it_takes_and_gives(tiny: Tiny, tmp_path: Path) -> None:
    request, facts = convert(tiny, tmp_path, io="int8")
    alone = Tflite().describe(request.out / facts.file)
    assert (alone.input, alone.output, alone.float_ops) == (facts.input, facts.output, facts.float_ops)
    assert (
        Tflite().describe(convert(tiny, tmp_path / "fp32", "fp32")[0].out / "model.tflite").deployment["precision"]
        == "fp32"
    )


def test_a_file_that_is_no_model_is_named(tmp_path: Path) -> None:
    (tmp_path / "noise.tflite").write_bytes(b"not a model at all, not at all")
    with pytest.raises(StageError, match=r"noise\.tflite is no TFLite model"):
        Tflite().describe(tmp_path / "noise.tflite")


@pytest.mark.parametrize("name", ["project.weight", "stem_act", "classifier.bias", "logits"])
def test_a_scale_that_is_not_the_tables_is_refused(name: str, tiny: Tiny, tmp_path: Path) -> None:
    request, _ = convert(tiny, tmp_path)
    changed = [rescaled(one, 1.5) if one.name == name else one for one in load_table(request.quant_table).tensors]
    save_table(QuantTable(tuple(changed)), tmp_path / "changed.json")
    with pytest.raises(StageError, match=rf"{name} in the quantization table\): scale"):
        Tflite().convert(replace(request, quant_table=tmp_path / "changed.json"))


@pytest.mark.parametrize("name", ["stem.weight", "spread.weight", "classifier.weight", "wide.bias"])
def test_one_byte_changed_in_the_file_is_found(name: str, tiny: Tiny, tmp_path: Path) -> None:
    request, facts = convert(tiny, tmp_path)
    content = read_model(request.out / facts.file)
    tensor = next(one for one in content.subgraphs[0].tensors if one.name.decode() == name)
    changed = bytearray(bytes(content.buffers[tensor.buffer].data))
    changed[3] ^= 1
    content.buffers[tensor.buffer].data = bytes(changed)
    (tmp_path / "changed.tflite").write_bytes(pack_model(content))
    with pytest.raises(StageError, match=rf"TFLite tensor {name} .*; training has"):
        check_against_table(tmp_path / "changed.tflite", load_table(request.quant_table), request.qdq_onnx)


def test_a_zero_point_changed_in_the_file_is_found(tiny: Tiny, tmp_path: Path) -> None:
    request, facts = convert(tiny, tmp_path)
    content = read_model(request.out / facts.file)
    tensor = next(one for one in content.subgraphs[0].tensors if one.name == b"added")
    tensor.quantization.zeroPoint = [1]
    (tmp_path / "changed.tflite").write_bytes(pack_model(content))
    with pytest.raises(StageError, match=r"added .*zero point \(1,\)"):
        check_against_table(tmp_path / "changed.tflite", load_table(request.quant_table), request.qdq_onnx)


def test_a_tensor_of_the_table_that_the_file_does_not_have_is_said(tiny: Tiny, tmp_path: Path) -> None:
    request, facts = convert(tiny, tmp_path)
    table = load_table(request.quant_table)
    more = QuantTable((*table.tensors, renamed(table.by_name()["added"], "gone")))
    missing = check_against_table(request.out / facts.file, more, request.qdq_onnx)
    assert missing == ("gone: fused away, not rounded on its own",)


@pytest.mark.parametrize("name", ["wide.weight", "wide.bias"])
def test_a_weight_or_bias_that_the_file_does_not_have_is_refused(name: str, tiny: Tiny, tmp_path: Path) -> None:
    request, facts = convert(tiny, tmp_path)
    table = load_table(request.quant_table)
    more = QuantTable((*table.tensors, renamed(table.by_name()[name], "gone")))
    with pytest.raises(StageError, match="'gone' is in the quantization table and not in the TFLite file"):
        check_against_table(request.out / facts.file, more, request.qdq_onnx)


def test_int8_tensors_are_those_of_the_table(tiny: Tiny, tmp_path: Path) -> None:
    request, facts = convert(tiny, tmp_path)
    table = load_table(request.quant_table)
    assert facts.int8_tensors == len(table.with_role("activation")) + len(table.with_role("weight"))


def test_constants_begin_on_a_border_of_16_bytes(tiny: Tiny, tmp_path: Path) -> None:
    request, facts = convert(tiny, tmp_path)
    content = (request.out / facts.file).read_bytes()
    weights = initializers(request.qdq_onnx)["stem.weight"].transpose(0, 2, 3, 1).tobytes()
    assert content.count(weights) == 1
    assert content.index(weights) % 16 == 0


def initializers(model: Path) -> Mapping[str, NDArray[Any]]:
    return {one.name: numpy_helper.to_array(one) for one in onnx.load(model).graph.initializer}


def test_a_missing_package_is_named_with_the_command_that_installs_it(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mobilekd.backends.tflite._MODULES", ("ai_edge_litert_of_tomorrow",))
    with pytest.raises(MissingToolError, match=r"ai_edge_litert_of_tomorrow not installed: .* -m pip install"):
        convert(tiny, tmp_path)


def test_kernels_that_do_not_exist_are_an_error(tiny: Tiny, tmp_path: Path) -> None:
    request, facts = convert(tiny, tmp_path)
    with pytest.raises(StageError, match="TFLite has no kernels 'gpu'"):
        Tflite().open(request.out / facts.file, facts, kernels="gpu", threads=1)
