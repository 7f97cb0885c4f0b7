"""Profiles, model files and a bundle that are measured in seconds."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from mobilekd.backend import DeployedFacts
from mobilekd.profile import BenchmarkSettings, Deployment, DeviceSettings, Profile, Target
from tests.backends.tiny import CLASSES, SIZE
from tests.device import models
from tests.release import workshop

CPU = "cortex-a76"


def profile(target: Target | None = None, benchmark: BenchmarkSettings | None = None, **device: Any) -> Profile:
    """Return a profile with these values in its [device] table."""
    return Profile(
        name="small",
        title="Small",
        target=target or Target(os="android", abi="arm64-v8a"),
        deploy=(Deployment(backend="onnxruntime" if device.get("transport") == "web" else "tflite"),),
        device=DeviceSettings(**device),
        benchmark=benchmark or BenchmarkSettings(timed_runs=10),
    )


@dataclass
class RealWorkshop(workshop.Workshop):
    """A bundle whose models are real, of the tiny network."""

    tiny: Mapping[str, models.Model] | None = None

    def _deployed(self, one: workshop.Model) -> Path:
        assert self.tiny
        model = self.tiny[one.backend]
        folder = self.root / f"deployed-{one.backend}"
        folder.mkdir()
        (folder / model.facts.file).write_bytes(model.file.read_bytes())
        workshop._json(folder / "deployment.json", asdict(model.facts))
        return folder


def write_heavy(path: Path) -> Path:
    """Write a float model of the tiny network's input that takes some hundred times as long."""
    rng = np.random.default_rng(0)
    widths = (3, 192, 192, 192, 192)
    nodes, constants, source = [], {}, "image"
    for index, (wide, narrow) in enumerate(zip(widths[1:], widths, strict=False)):
        constants[f"w{index}"] = rng.normal(0, 0.05, (wide, narrow, 3, 3)).astype(np.float32)
        nodes.append(helper.make_node("Conv", [source, f"w{index}"], [f"c{index}"], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Relu", [f"c{index}"], [f"r{index}"]))
        source = f"r{index}"
    nodes.append(helper.make_node("GlobalAveragePool", [source], ["pooled"]))
    nodes.append(helper.make_node("Flatten", ["pooled"], ["logits"]))
    return _write(path, nodes, constants, classes=widths[-1])


def write_wide(path: Path) -> Path:
    """Write a float model that takes larger images than the tiny network."""
    nodes = [helper.make_node("GlobalAveragePool", ["image"], ["pooled"])]
    nodes.append(helper.make_node("Flatten", ["pooled"], ["logits"]))
    return _write(path, nodes, {}, classes=3, size=2 * SIZE)


def write_dying(path: Path) -> Path:
    """Write a model that loads and whose first run fails: it reads past the end of its constant."""
    constants = {"table": np.ones((1, CLASSES), np.float32), "far": np.float32([1000])}
    nodes = [
        helper.make_node("ReduceMax", ["image"], ["largest"], keepdims=0),
        helper.make_node("Add", ["largest", "far"], ["sum"]),
        helper.make_node("Cast", ["sum"], ["index"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "index"], ["logits"], axis=0),
    ]
    return _write(path, nodes, constants, classes=CLASSES)


def _write(
    path: Path, nodes: Sequence[onnx.NodeProto], constants: Mapping[str, Any], *, classes: int, size: int = SIZE
) -> Path:
    graph = helper.make_graph(
        list(nodes),
        "small",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, size, size])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, classes])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
    return path


def unrunnable(facts: DeployedFacts) -> DeployedFacts:
    """Return facts of a model that needs a GPU which is not here."""
    return replace(facts, runnable=False, note="built, not run: no GPU on this host")
