"""A network of 6 layers in QDQ form, with the operators that mobile students are made of: small enough to read."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from mobilekd import graph
from mobilekd.backend import Conversion, DeployedFacts, Session
from mobilekd.profile import Deployment, Target
from mobilekd.quant_table import QuantTable, TensorQuant, load_table, save_table

ANDROID = Target(os="android", abi="arm64-v8a")
SIZE = 8
CLASSES = 10


class _Builder:
    def __init__(self, seed: int) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: dict[str, NDArray[np.generic]] = {}
        self._rng = np.random.default_rng(seed)

    def rounded(self, tensor: str, scale: float, real: str = "") -> str:
        """Add a QuantizeLinear and a DequantizeLinear; return the name of the rounded tensor."""
        ends = (f"{tensor}_scale", "zero")
        self.constants |= {ends[0]: np.float32(scale), "zero": np.int8(0)}
        real = real or f"{tensor}_dq"
        self.nodes.append(helper.make_node("QuantizeLinear", [tensor, *ends], [f"{tensor}_q"], name=f"{tensor}_Q"))
        self.nodes.append(helper.make_node("DequantizeLinear", [f"{tensor}_q", *ends], [real], name=f"{tensor}_DQ"))
        return real

    def layer(self, op: str, name: str, source: str, shape: Sequence[int], **attributes: object) -> str:
        """Add a layer with per-channel int8 weights and a bias; return its output."""
        channels = shape[0]
        scale = (self._rng.uniform(0.5, 1.5, channels) / 127 / np.sqrt(np.prod(shape[1:]))).astype(np.float32)
        self.constants |= {
            f"{name}.weight": self._rng.integers(-127, 128, shape, dtype=np.int8),
            f"{name}.scale": scale,
            f"{name}.zero": np.zeros(channels, np.int8),
            f"{name}.bias": self._rng.normal(0, 0.1, channels).astype(np.float32),
        }
        inputs = [f"{name}.{part}" for part in ("weight", "scale", "zero")]
        self.nodes.append(helper.make_node("DequantizeLinear", inputs, [f"{name}_w"], name=f"{name}_w", axis=0))
        return self.node(op, name, [source, f"{name}_w", f"{name}.bias"], **attributes)

    def node(self, op: str, name: str, inputs: Sequence[str], **attributes: object) -> str:
        self.nodes.append(helper.make_node(op, list(inputs), [name], name=name, **attributes))
        return name

    def model(self) -> ModelProto:
        built = helper.make_graph(
            self.nodes,
            "tiny",
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, SIZE, SIZE])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, CLASSES])],
            [numpy_helper.from_array(np.asarray(value), name) for name, value in self.constants.items()],
        )
        return graph.canonicalize(helper.make_model(built, opset_imports=[helper.make_opsetid("", 18)]))


def qdq_model(*, seed: int = 0, activation: str = "Relu") -> ModelProto:
    """Return conv-relu, depthwise-relu, pointwise, add, pool, conv-relu, linear, all with rounded tensors between.

    Args:
        seed: Of weights and biases.
        activation: "Relu", "Clip" (ReLU6), or the name of any other ONNX operator of one input.
    """
    net = _Builder(seed)

    def activated(source: str, name: str, scale: float) -> str:
        limits = ["low", "high"] if activation == "Clip" else []
        if limits:
            net.constants.update({"low": np.float32(0), "high": np.float32(6)})
        return net.rounded(net.node(activation, name, [source, *limits]), scale)

    image = net.rounded("image", 2 / 127)
    stem = net.layer("Conv", "stem", image, (8, 3, 3, 3), pads=[1, 1, 1, 1])
    trunk = activated(stem, "stem_act", 2 / 127)
    spread = net.layer("Conv", "spread", trunk, (8, 1, 3, 3), pads=[1, 1, 1, 1], group=8)
    spread = activated(spread, "spread_act", 1.5 / 127)
    project = net.rounded(net.layer("Conv", "project", spread, (8, 8, 1, 1)), 1 / 127)
    added = net.rounded(net.node("Add", "added", [project, trunk]), 2.5 / 127)
    wide = activated(net.layer("Conv", "wide", added, (16, 8, 1, 1)), "wide_act", 1.5 / 127)
    pooled = net.rounded(net.node("GlobalAveragePool", "pooled", [wide]), 0.8 / 127)
    flat = net.rounded(net.node("Flatten", "flat", [pooled]), 0.8 / 127)
    linear = net.layer("Gemm", "classifier", flat, (CLASSES, 16), transB=1)
    net.rounded(linear, 0.6 / 127, real="logits")
    return graph.snap_biases(net.model())


@dataclass(frozen=True)
class Tiny:
    """The files that a backend converts, and the folders that it writes to."""

    request: Conversion

    def for_(self, deployment: Deployment, target: Target = ANDROID) -> Conversion:
        """Return the request for one deployment."""
        return replace(self.request, deployment=deployment, target=target)


def write_tiny(folder: Path, model: ModelProto | None = None) -> Tiny:
    """Write the three graphs, and the table into a folder; return the request to convert them."""
    qdq = model or qdq_model()
    for name in ("out", "work"):
        (folder / name).mkdir(parents=True)
    stripped = graph.strip_qdq(qdq)
    graph.save(qdq, folder / "qdq.onnx")
    graph.save(stripped, folder / "stripped.onnx")
    graph.save(stripped, folder / "float.onnx")
    save_table(graph.read_table(qdq), folder / "quant_table.json")
    return Tiny(conversion_in(folder))


def images(count: int, seed: int = 1) -> NDArray[np.float32]:
    """Return normalised images that fill the input's range."""
    return np.random.default_rng(seed).uniform(-2, 2, (count, 3, SIZE, SIZE)).astype(np.float32)


def reference_logits(path: Path, batch: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return what ONNX Runtime computes node by node, without any optimization: the meaning of the graph."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: image[None]})[0] for image in batch])


def session_logits(session: Session, batch: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the logits [n, classes] of an opened model."""
    rows = []
    for image in batch:
        session.load_input(image[None])
        session.invoke()
        rows.append(session.read_output())
    return np.stack(rows)


def output_step(path: Path) -> float:
    """Return the scale of the logits of a QDQ model."""
    return graph.read_table(onnx.load(str(path))).by_name()["logits"].scale[0]


def rescaled(quant: TensorQuant, factor: float) -> TensorQuant:
    """Return a table entry with its scale changed."""
    return replace(quant, scale=tuple(factor * one for one in quant.scale))


def renamed(quant: TensorQuant, name: str) -> TensorQuant:
    """Return a table entry under another name."""
    return replace(quant, name=name)


def conversion_in(folder: Path) -> Conversion:
    """Return the request for the files of a network that lie in a folder; the deployment is still to be named."""
    return Conversion(
        float_onnx=folder / "float.onnx",
        qdq_onnx=folder / "qdq.onnx",
        stripped_onnx=folder / "stripped.onnx",
        quant_table=folder / "quant_table.json",
        target=ANDROID,
        deployment=Deployment(backend="none"),
        out=folder / "out",
        work=folder / "work",
        log=folder / "convert.log",
        toolchains=folder / "toolchains",
    )


@dataclass(frozen=True)
class Built:
    """A network that was converted: what was asked for, and what came out."""

    work: Tiny
    facts: DeployedFacts

    @property
    def file(self) -> Path:
        return self.work.request.out / self.facts.file

    @property
    def table(self) -> QuantTable:
        return load_table(self.work.request.quant_table)
