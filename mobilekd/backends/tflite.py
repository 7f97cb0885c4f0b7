"""TFLite (LiteRT): onnx2tf in its own environment makes the float file, the table's scales make it int8."""

import importlib.metadata
import importlib.util
import shutil
import struct
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from mobilekd import toolchain
from mobilekd.backend import Conversion, DeployedFacts, TensorFacts
from mobilekd.backends import _tflite_graph as tfl
from mobilekd.backends._tflite_check import check_against_table
from mobilekd.backends._tflite_match import (
    WeightTwin,
    activation_twins,
    check_output,
    onnx_values,
    ranges,
    tflite_values,
    weight_twins,
)
from mobilekd.backends._tflite_onnx import prepare
from mobilekd.backends._tflite_quantize import write_order
from mobilekd.backends._tflite_session import TfliteSession
from mobilekd.errors import MissingToolError, StageError
from mobilekd.process import run_logged
from mobilekd.profile import Deployment
from mobilekd.quant_table import TensorQuant, load_table

_FILE = "model.tflite"
_MODULES = ("ai_edge_litert", "ai_edge_quantizer", "onnx", "onnxruntime")


@dataclass(frozen=True, slots=True)
class _Flow:
    """What flows through a float TFLite file and its ONNX graph on the same samples."""

    graph: tfl.Graph
    values: Mapping[int, NDArray[Any]]
    onnx: Mapping[str, NDArray[Any]]


class Tflite:
    """TFLite models on CPU: XNNPACK, the built-in kernels and the reference kernels."""

    precisions: ClassVar[tuple[str, ...]] = ("fp32", "fp16", "int8")
    kernels: ClassVar[tuple[str, ...]] = ("xnnpack", "builtin", "reference")
    tools: ClassVar[tuple[str, ...]] = ("ai-edge-litert", "ai-edge-quantizer")
    toolchains: ClassVar[tuple[str, ...]] = ("onnx2tf",)
    """Environments whose lock enters the key of a conversion (`toolchain.lock_digest`)."""
    output_parity_steps: ClassVar[float] = 3.0

    def missing(self) -> str | None:
        """Return what is not installed, with the command that mends it; None when ready. Imports nothing heavy."""
        absent = [name for name in _MODULES if importlib.util.find_spec(name) is None]
        if absent:
            return f"{', '.join(absent)} not installed: {sys.executable} -m pip install 'mobilekd[tflite,onnx]'"
        try:
            toolchain.find_uv()
            toolchain.find_python()
        except MissingToolError as lack:
            return f"{lack.message}: {lack.hint}"
        return None

    def convert(self, request: Conversion) -> DeployedFacts:
        """Write model.tflite: NHWC, batch 1.

        Raises:
            MissingToolError: onnx2tf's environment is not there and can't be made.
            StageError: onnx2tf or the quantizer refused, or the int8 file is not what the table says.
        """
        absent = self.missing()
        if absent is not None:
            raise MissingToolError(f"tflite: {absent}")
        precision = request.deployment.precision
        source, result = _float_file(request), request.out / _FILE
        flow = _flow(request, source)
        notes: tuple[str, ...] = ()
        if precision == "int8":
            notes = _quantize(request, source, result, flow)
        elif precision == "fp16":
            _halve(request, source, result)
        else:
            shutil.copyfile(source, result)
        return _facts(request, result, notes)

    def describe(self, model: Path) -> DeployedFacts:
        """Return what a .tflite file says of itself; int8 when any of its tensors is."""
        try:
            has_int8 = any(tensor.dtype == "int8" for tensor in tfl.view(tfl.read_model(model)).tensors)
        except (struct.error, ValueError, IndexError, TypeError) as cause:
            raise StageError(f"{model} is no TFLite model: {cause}") from cause
        return _described(model, Deployment(backend="tflite", precision="int8" if has_int8 else "fp32"), {}, ())

    def open(self, model: Path, facts: DeployedFacts, *, kernels: str, threads: int) -> "TfliteSession":
        """Load a model on this host."""
        del facts  # the file itself says its types and scales
        return TfliteSession(model, kernels, threads)


def _float_file(request: Conversion) -> Path:
    """Run onnx2tf on the float graph of this precision; return its file, tidied."""
    python = toolchain.install("onnx2tf", request.toolchains, _LogTeller(request.log))
    request.work.mkdir(parents=True, exist_ok=True)
    source, folder = request.work / "model.onnx", request.work / "onnx2tf"
    prepare(request.source_onnx, source)
    # -I: nothing of the user's Python. --non_verbose: the log keeps what went wrong, without a page for every operator.
    argv = [str(python), "-I", "-m", "onnx2tf", "-i", str(source), "-o", str(folder), "--non_verbose"]
    try:
        run_logged(
            [*toolchain.offline_prefix(), *argv], request.log, env=toolchain.isolated_env(python), timeout_s=1800.0
        )
        model = tfl.read_model(folder / "model_float32.tflite")
    except (StageError, OSError) as cause:
        raise StageError(
            f"onnx2tf did not convert {request.source_onnx.name}: {cause}", hint=f"the whole log: {request.log}"
        ) from cause
    custom = [op.kind for op in tfl.view(model).ops if op.kind.startswith("CUSTOM")]
    if custom:
        raise StageError(
            f"onnx2tf did not convert {request.source_onnx.name}: TFLite has no operator for {', '.join(custom)}",
            hint=f"take it out of the network, or drop the tflite deployment; the whole log: {request.log}",
        )
    tfl.tidy(model)
    tidied = request.work / "float32.tflite"
    tfl.write_model(model, tidied)
    return tidied


def _flow(request: Conversion, source: Path) -> _Flow:
    """Run the samples through the float TFLite file and the ONNX graph it was made from; compare the output."""
    graph, samples = tfl.view(tfl.read_model(source)), np.load(request.samples)
    values, onnx = tflite_values(source, graph, samples), onnx_values(request.source_onnx, samples)
    check_output(graph, values, onnx, output=list(onnx)[1])
    return _Flow(graph, values, onnx)


def _quantize(request: Conversion, source: Path, result: Path, flow: _Flow) -> tuple[str, ...]:
    """Write the int8 file with the table's scales, and read it back; return where it can't follow the table."""
    table, graph = load_table(request.quant_table), flow.graph
    twins = activation_twins(graph, flow.values, flow.onnx, table)
    weights = weight_twins(graph, table, request.qdq_onnx, request.stripped_onnx)
    known = ranges(graph, twins)
    lost = [graph.tensors[index].name for index in graph.activations() if index not in known]
    if lost:
        raise StageError(
            f"{len(lost)} tensors of the TFLite graph have no range: {', '.join(lost[:5])}",
            hint="they match no tensor of the quantization table, and no rule gives their range",
        )
    order, raw = request.work / "order.json", request.work / "raw_int8.tflite"
    write_order(order, source=source, result=raw, io=request.deployment.io, graph=graph, ranges=known, weights=weights)
    run_logged([sys.executable, "-m", "mobilekd.backends._tflite_quantize", "int8", str(order)], request.log)
    model = tfl.read_model(raw)
    tfl.name_float_output(model)
    tfl.write_model(model, result)
    by_name: dict[str, TensorQuant] = {graph.tensors[index].name: quant for index, quant in twins.items()}
    named: dict[str, WeightTwin] = {graph.tensors[index].name: weight for index, weight in weights.items()}
    fixed = check_against_table(tfl.view(tfl.read_model(result)), by_name, named)
    matched = {quant.name for quant in twins.values()}
    folded = [entry.name for entry in table.with_role("activation") if entry.name not in matched]
    return (
        *(f"{name}: scale fixed by the kernel, not by training" for name in fixed),
        *(f"{name}: folded away, not quantized on its own" for name in folded),
    )


def _halve(request: Conversion, source: Path, result: Path) -> None:
    """Write float16 weights; onnx2tf's own float16 file has float16 activations too, which no CPU kernel runs."""
    raw = request.work / "raw_fp16.tflite"
    program = [sys.executable, "-m", "mobilekd.backends._tflite_quantize", "fp16", str(source), str(raw)]
    run_logged(program, request.log)
    tfl.write_model(tfl.read_model(raw), result)


def _facts(request: Conversion, result: Path, notes: tuple[str, ...]) -> DeployedFacts:
    versions = {name: importlib.metadata.version(name) for name in Tflite.tools}
    versions["onnx2tf"] = toolchain.pins("onnx2tf")["onnx2tf"]
    return _described(result, request.deployment, versions, notes)


def _described(model: Path, deployment: Deployment, tools: dict[str, str], notes: tuple[str, ...]) -> DeployedFacts:
    graph = tfl.view(tfl.read_model(model))
    return DeployedFacts(
        deployment=deployment.model_dump(mode="json"),
        file=model.name,
        runnable=True,
        input=_edge(graph.tensors[graph.inputs[0]]),
        output=_edge(graph.tensors[graph.outputs[0]]),
        float_ops=tfl.float_matrix_ops(graph),
        other_float_ops=tfl.other_float_ops(graph),
        int8_tensors=sum(tensor.dtype == "int8" for tensor in graph.tensors),
        tools=tools,
        note="; ".join((f"{tfl.count_kind(graph, 'TRANSPOSE')} TRANSPOSE operators", *notes)),
    )


def _edge(tensor: tfl.Tensor) -> TensorFacts:
    layout = "NHWC" if len(tensor.shape) == 4 else "NC"
    scale, zero_point = (tensor.scale[0], tensor.zero_point[0]) if tensor.dtype == "int8" else (None, None)
    return TensorFacts(tensor.name, tensor.shape, tensor.dtype, layout, scale, zero_point)


class _LogTeller:
    """Progress of an environment that was not prepared before the conversion, kept in its log."""

    def __init__(self, log: Path) -> None:
        self._log = log

    def say(self, line: str) -> None:
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("a", encoding="utf-8") as stream:
            stream.write(line + "\n")
