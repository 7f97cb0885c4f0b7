import functools
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from mobilekd.backend import Conversion, DeployedFacts
from mobilekd.backends._tflite_check import check_against_table
from mobilekd.backends._tflite_graph import Graph, Op, Tensor, read_model, view
from mobilekd.backends._tflite_match import Range, WeightTwin, activation_twins, ranges
from mobilekd.backends.tflite import Tflite
from mobilekd.errors import MissingToolError, StageError
from mobilekd.profile import Deployment, Target
from mobilekd.quant_table import QuantTable, TensorQuant, load_table, save_table

TARGET = Target(os="android", abi="arm64-v8a")
SIZE = 8
WEIGHTS = {"stem.w": (8, 3, 3, 3), "depthwise.w": (8, 1, 3, 3), "point.w": (8, 8, 1, 1), "linear.w": (4, 8)}
ACTIVATIONS = ("image", "stem", "depthwise", "point", "sum", "mean", "flat", "logits")


def nodes(last: str) -> list[onnx.NodeProto]:
    """conv + relu, depthwise + relu, 1x1 conv, residual add, global average pool, linear."""
    return [
        helper.make_node("Conv", ["image", "stem.w", "stem.b"], ["stem.pre"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["stem.pre"], ["stem"]),
        helper.make_node("Conv", ["stem", "depthwise.w", "depthwise.b"], ["depthwise.pre"], pads=[1] * 4, group=8),
        helper.make_node("Relu", ["depthwise.pre"], ["depthwise"]),
        helper.make_node("Conv", ["depthwise", "point.w", "point.b"], ["point"]),
        helper.make_node("Add", ["point", "stem"], ["sum"]),
        helper.make_node("GlobalAveragePool", ["sum"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["flat"]),
        helper.make_node("Gemm", ["flat", "linear.w", "linear.b"], [last], transB=1),
    ]


def save(path: Path, made: list[onnx.NodeProto], constants: dict[str, np.ndarray]) -> Path:
    graph = helper.make_graph(
        made,
        "network",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, SIZE, SIZE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 4])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def qdq_nodes(table: QuantTable) -> list[onnx.NodeProto]:
    """The network with Q/DQ behind every tensor of the table, as training exports it."""
    made = []
    quantized = {entry.name for entry in table.tensors if entry.role != "bias"}
    for name in ("image", *WEIGHTS):
        made += coded(name, name, is_weight=name in WEIGHTS)
    for node in nodes("logits"):
        inputs = [f"{name}.dq" if name in quantized else name for name in node.input]
        result = node.output[0]
        raw = "logits.raw" if result == "logits" else result
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.input[:], copy.output[:] = inputs, [raw]
        made.append(copy)
        made += coded(raw, result, is_weight=False) if result in quantized else []
    made[-1].output[0] = "logits"
    return made


def coded(raw: str, name: str, *, is_weight: bool) -> list[onnx.NodeProto]:
    axis = {"axis": 0} if is_weight else {}
    source = raw if is_weight else f"{name}.q"
    quantize = helper.make_node("QuantizeLinear", [raw, f"{name}.s", f"{name}.z"], [f"{name}.q"])
    restore = helper.make_node("DequantizeLinear", [source, f"{name}.s", f"{name}.z"], [f"{name}.dq"], **axis)
    return [restore] if is_weight else [quantize, restore]


def entry(name: str, role: Any, scale: Any, axis: int | None = None) -> TensorQuant:
    scales = tuple(float(one) for one in np.atleast_1d(np.asarray(scale, np.float32)))
    low = -127 if role == "weight" else -128
    return TensorQuant(name, role, "int8", scales, (0,) * len(scales), axis, low, 127)


def tensors_of(model: Path, samples: np.ndarray) -> dict[str, np.ndarray]:
    proto = onnx.load(model)
    extra = [node.output[0] for node in proto.graph.node if node.output[0] != "logits"]
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in extra)
    session = ort.InferenceSession(proto.SerializeToString())
    runs = [session.run(["logits", *extra], {"image": image[None]}) for image in samples]
    columns = zip(*runs, strict=True)
    return {"image": samples, **dict(zip(("logits", *extra), map(np.concatenate, columns), strict=True))}


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory as the simplify stage leaves it, of a network with random weights."""
    folder, rng = tmp_path_factory.mktemp("network"), np.random.default_rng(7)
    samples = rng.normal(size=(8, 3, SIZE, SIZE)).astype(np.float32)
    np.save(folder / "samples.npy", samples)
    real = {name: rng.normal(size=shape).astype(np.float32) / 3 for name, shape in WEIGHTS.items()}
    bias = {name.replace(".w", ".b"): rng.normal(size=shape[0]).astype(np.float32) for name, shape in WEIGHTS.items()}
    scale = {name: (np.abs(one.reshape(len(one), -1)).max(1) / 127).astype(np.float32) for name, one in real.items()}
    shaped = {name: one.reshape(-1, *[1] * (real[name].ndim - 1)) for name, one in scale.items()}
    int8 = {name: np.clip(np.rint(real[name] / shaped[name]), -127, 127).astype(np.int8) for name in WEIGHTS}
    save(folder / "float.onnx", nodes("logits"), real | bias)
    stripped = save(folder / "stripped.onnx", nodes("logits"), {n: int8[n] * shaped[n] for n in WEIGHTS} | bias)
    seen = tensors_of(stripped, samples)
    act = {name: np.float32(np.abs(seen[name]).max() / 127) for name in ACTIVATIONS} | {
        "flat": np.float32(np.abs(seen["mean"]).max() / 127)
    }
    table = QuantTable(
        (
            *(entry(name, "activation", act[name]) for name in ACTIVATIONS),
            *(entry(name, "weight", scale[name], axis=0) for name in WEIGHTS),
        )
    )
    save_table(table, folder / "quant_table.json")
    scales = {f"{name}.s": np.asarray(one) for name, one in (act | scale).items()}
    zeros = {f"{name}.z": np.zeros(np.shape(one), np.int8) for name, one in (act | scale).items()}
    save(folder / "qdq.onnx", qdq_nodes(table), int8 | bias | scales | zeros)
    return folder


@pytest.fixture(scope="session")
def toolchains() -> Path:
    """One root for all tests, so that onnx2tf's 536 MB are made once."""
    home = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    cache = Path(os.environ.get("MOBILEKD_CACHE", home / "mobilekd"))
    return Path(os.environ.get("MOBILEKD_TOOLCHAINS", cache / "toolchains"))


Request = Callable[..., Conversion]
Converted = Callable[..., tuple[Conversion, DeployedFacts]]


@pytest.fixture(scope="module")
def request_for(network: Path, tmp_path_factory: pytest.TempPathFactory, toolchains: Path) -> Request:
    def make(precision: Any, io: Any = "float32") -> Conversion:
        folder = tmp_path_factory.mktemp(precision)
        out = folder / "out"
        out.mkdir()
        return Conversion(
            float_onnx=network / "float.onnx",
            qdq_onnx=network / "qdq.onnx",
            stripped_onnx=network / "stripped.onnx",
            quant_table=network / "quant_table.json",
            samples=network / "samples.npy",
            target=TARGET,
            deployment=Deployment(backend="tflite", precision=precision, io=io),
            out=out,
            work=folder / "work",
            log=folder / "convert.log",
            toolchains=toolchains,
        )

    return make


@pytest.fixture(scope="module")
def converted(request_for: Request) -> Converted:
    """Converts once for each precision and type of input and output."""

    @functools.cache
    def convert(precision: str, io: str = "float32") -> tuple[Conversion, DeployedFacts]:
        request = request_for(precision, io)
        return request, Tflite().convert(request)

    return convert


def logits_of(request: Conversion, facts: DeployedFacts, kernels: str, images: np.ndarray) -> np.ndarray:
    session = Tflite().open(request.out / facts.file, facts, kernels=kernels, threads=1)
    results = []
    for image in images:
        session.load_input(image[None])
        session.invoke()
        results.append(session.read_output())
    return np.stack(results)


def unseen_images() -> np.ndarray:
    return np.random.default_rng(11).normal(size=(32, 3, SIZE, SIZE)).astype(np.float32)


@pytest.mark.slow
@pytest.mark.parametrize("io", ["float32", "int8"])
@pytest.mark.parametrize("kernels", Tflite.kernels)
def test_int8_is_within_one_output_step_of_the_trained_network(converted: Converted, kernels: str, io: str) -> None:
    request, facts = converted("int8", io)
    images = unseen_images()
    step = load_table(request.quant_table).by_name()["logits"].scale[0]
    reference = tensors_of(request.qdq_onnx, images)["logits"]
    steps = np.abs(logits_of(request, facts, kernels, images) - reference) / step
    assert steps.max() < 1.01
    assert steps.mean() < 0.2


@pytest.mark.slow
def test_every_layer_of_the_int8_file_runs_in_int8(converted: Converted) -> None:
    request, facts = converted("int8")
    graph = view(read_model(request.out / facts.file))
    kinds = [op.kind for op in graph.ops]
    assert (facts.float_ops, facts.other_float_ops) == ((), ())
    assert kinds.count("TRANSPOSE") == 0
    assert facts.int8_tensors == len(WEIGHTS) + len(ACTIVATIONS)


@pytest.mark.slow
def test_int8_input_and_output_carry_the_scales_of_the_table(converted: Converted) -> None:
    request, facts = converted("int8", "int8")
    table = load_table(request.quant_table).by_name()
    assert (facts.input.dtype, facts.input.layout, facts.input.shape) == ("int8", "NHWC", (1, SIZE, SIZE, 3))
    assert (facts.input.scale, facts.input.zero_point) == (table["image"].scale[0], 0)
    assert (facts.output.scale, facts.output.zero_point) == (table["logits"].scale[0], 0)


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-5), ("fp16", 2e-3)])
def test_a_float_file_agrees_with_the_float_network(converted: Converted, precision: str, tolerance: float) -> None:
    request, facts = converted(precision)
    images = unseen_images()
    reference = tensors_of(request.float_onnx, images)["logits"]
    error = np.abs(logits_of(request, facts, "xnnpack", images) - reference).max()
    assert error < tolerance * np.abs(reference).max()
    assert (facts.input.name, facts.input.dtype, facts.output.name) == ("image", "float32", "logits")


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_two_conversions_make_the_same_bytes(converted: Converted, request_for: Request, precision: str) -> None:
    one, two = converted(precision)[0], request_for(precision)
    Tflite().convert(two)
    assert (one.out / "model.tflite").read_bytes() == (two.out / "model.tflite").read_bytes()


@pytest.mark.slow
def test_a_weight_scale_changed_after_training_is_refused(request_for: Request, tmp_path: Path) -> None:
    request = request_for("int8")
    table = load_table(request.quant_table)
    changed = [
        replace(one, scale=tuple(1.5 * value for value in one.scale)) if one.name == "point.w" else one
        for one in table.tensors
    ]
    save_table(QuantTable(tuple(changed)), tmp_path / "changed.json")
    with pytest.raises(StageError, match=r"point\.w in the quantization table"):
        Tflite().convert(replace(request, quant_table=tmp_path / "changed.json"))


@pytest.mark.slow
def test_an_operator_that_onnx2tf_does_not_know_is_one_error_with_the_log(request_for: Request, tmp_path: Path) -> None:
    request = request_for("fp32")
    model = onnx.load(request.float_onnx)
    model.graph.node[1].op_type, model.graph.node[1].domain = "Mystery", "example"
    model.opset_import.append(helper.make_opsetid("example", 1))
    onnx.save(model, tmp_path / "mystery.onnx")
    with pytest.raises(StageError, match=r"onnx2tf did not convert mystery\.onnx") as caught:
        Tflite().convert(replace(request, float_onnx=tmp_path / "mystery.onnx"))
    assert "TFLite has no operator for CUSTOM ONNX_MYSTERY" in caught.value.message
    assert str(request.log) in caught.value.hint


def test_a_machine_without_uv_and_python_is_told_what_to_install(
    request_for: Request, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    monkeypatch.setenv("UV_PYTHON_INSTALL_DIR", str(tmp_path))
    with pytest.raises(MissingToolError, match=r"tflite: no CPython 3\.12 or 3\.13 runs here"):
        Tflite().convert(request_for("int8"))


def flowing(name: str, *, dtype: str = "float32", scale: tuple[float, ...] = ()) -> Tensor:
    return Tensor(name, dtype, (1, 2, 2, 3), scale, (0,) * len(scale), 0, None)


def constant(name: str, data: np.ndarray, scale: tuple[float, ...] = ()) -> Tensor:
    return Tensor(name, str(data.dtype), data.shape, scale, (0,) * len(scale), 0, data)


def test_read_back_names_an_activation_whose_scale_is_not_the_tables() -> None:
    graph = Graph((flowing("sum", dtype="int8", scale=(0.5,)),), (), (0,), (0,))
    check_against_table(graph, {"sum": entry("add", "activation", 0.5)}, {})
    with pytest.raises(StageError, match=r"sum \(add in the quantization table\): scale \(0\.5,\).*\(0\.25, 0\)"):
        check_against_table(graph, {"sum": entry("add", "activation", 0.25)}, {})


def test_read_back_names_a_weight_that_is_one_step_off() -> None:
    payload = np.arange(6, dtype=np.int8).reshape(2, 3)
    graph = Graph((constant("kernel", payload + np.int8(1), scale=(0.5, 0.25)),), (), (), ())
    twin = WeightTwin(entry("linear.w", "weight", (0.5, 0.25), axis=0), payload, 0)
    with pytest.raises(StageError, match=r"kernel \(linear\.w .*: 1 at \[0, 0\]; training has 0"):
        check_against_table(graph, {}, {"kernel": twin})


def test_read_back_refuses_a_float_bias() -> None:
    tensors = (flowing("in", dtype="int8"), flowing("w"), constant("bias", np.zeros(3, np.float32)), flowing("out"))
    graph = Graph(tensors, (Op("CONV_2D", (0, 1, 2), (3,)),), (0,), (3,))
    with pytest.raises(StageError, match="bias is int32"):
        check_against_table(graph, {}, {})


def test_padding_shares_its_inputs_range_and_a_clamp_takes_its_outputs() -> None:
    tensors = tuple(map(flowing, ("in", "padded", "made", "clamped")))
    ops = (Op("PAD", (0,), (1,)), Op("CONV_2D", (1,), (2,)), Op("RELU", (2,), (3,)))
    twins = {0: entry("in", "activation", 1.0), 3: entry("clamped", "activation", 0.5)}
    assert ranges(Graph(tensors, ops, (0,), (3,)), twins) == {
        0: Range(-128.0, 127.0),
        1: Range(-128.0, 127.0),
        2: Range(-64.0, 63.5),
        3: Range(-64.0, 63.5),
    }


def test_a_product_with_a_constant_maps_the_interval() -> None:
    tensors = (flowing("in"), constant("sixth", np.array([-0.5, 0.25], np.float32)), flowing("product"))
    graph = Graph(tensors, (Op("MUL", (0, 1), (2,)),), (0,), (2,))
    assert ranges(graph, {0: entry("in", "activation", 1.0)})[2] == Range(-63.5, 64.0)


def test_a_tensor_is_matched_in_either_layout_and_noise_is_not() -> None:
    rng = np.random.default_rng(3)
    nchw = rng.normal(size=(2, 1, 3, 2, 2)).astype(np.float32)
    values = {0: np.moveaxis(nchw, 2, -1), 1: nchw, 2: rng.normal(size=(2, 1, 2, 2, 3)).astype(np.float32)}
    graph = Graph(tuple(map(flowing, "abc")), (Op("ADD", (0, 1), (2,)),), (0, 1), (2,))
    wanted = entry("feature", "activation", 0.1)
    assert activation_twins(graph, values, {"feature": nchw}, QuantTable((wanted,))) == {0: wanted, 1: wanted}
