"""TFLite (LiteRT): the trained Q/DQ graph becomes an int8 flatbuffer, operator by operator."""

import importlib.metadata
import importlib.util
import struct
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from mobilekd.backend import Conversion, DeployedFacts, Float32, TensorFacts
from mobilekd.backends import _tflite_graph as tfl
from mobilekd.backends._tflite_session import TfliteSession
from mobilekd.errors import MissingToolError, StageError
from mobilekd.profile import Deployment
from mobilekd.quant_table import load_table

_FILE = "model.tflite"
_IDENTIFIER = b"TFL3"
_MODULES = ("ai_edge_litert", "onnx")


class Tflite:
    """TFLite models on CPU: XNNPACK, the built-in kernels and the reference kernels."""

    precisions: ClassVar[tuple[str, ...]] = ("fp32", "fp16", "int8")
    symmetries: ClassVar[tuple[str, ...]] = ("symmetric", "asymmetric")
    kernels: ClassVar[tuple[str, ...]] = ("xnnpack", "builtin", "reference")
    tools: ClassVar[tuple[str, ...]] = ("ai-edge-litert", "onnx")
    toolchains: ClassVar[tuple[str, ...]] = ()
    depends_on_machine: ClassVar[bool] = False
    output_parity_steps: ClassVar[float] = 3.0

    def missing(self) -> str | None:
        """Return what is not installed, with the command that mends it; None when ready. Imports nothing heavy."""
        absent = [name for name in _MODULES if importlib.util.find_spec(name) is None]
        if absent:
            return f"{', '.join(absent)} not installed: {sys.executable} -m pip install 'mobilekd[tflite,onnx]'"
        return None

    def convert(self, request: Conversion) -> DeployedFacts:
        """Write model.tflite: NHWC, batch 1.

        Raises:
            MissingToolError: A package is not installed.
            StageError: An operator has no TFLite form, or the int8 file is not what the table says.
        """
        from mobilekd.backends._tflite_check import check_against_table
        from mobilekd.backends._tflite_write import write

        absent = self.missing()
        if absent is not None:
            raise MissingToolError(f"tflite: {absent}", code="MKD-302")
        deployment, result = request.deployment, request.out / _FILE
        is_int8 = deployment.precision == "int8"
        source = request.qdq_onnx if is_int8 else request.float_onnx
        write(source, result, io=deployment.io, half_weights=deployment.precision == "fp16")
        notes = check_against_table(result, load_table(request.quant_table), request.qdq_onnx) if is_int8 else ()
        tools = {name: importlib.metadata.version(name) for name in self.tools}
        return _described(result, deployment, tools, notes)

    def describe(self, model: Path) -> DeployedFacts:
        """Return what a .tflite file says of itself; int8 when any of its tensors is."""
        if model.read_bytes()[4:8] != _IDENTIFIER:
            raise StageError(
                f"{model} is no TFLite model: its bytes 4 to 8 are not {_IDENTIFIER.decode()}", code="MKD-422"
            )
        try:
            has_int8 = any(tensor.dtype == "int8" for tensor in tfl.view(tfl.read_model(model)).tensors)
        except (struct.error, ValueError, IndexError, TypeError) as cause:
            raise StageError(f"{model} is no TFLite model: {cause}", code="MKD-422") from cause
        return _described(model, Deployment(backend="tflite", precision="int8" if has_int8 else "fp32"), {}, ())

    def open(self, model: Path, facts: DeployedFacts, *, kernels: str, threads: int) -> TfliteSession:
        """Load a model on this host."""
        del facts  # the file itself says its types and scales
        return TfliteSession(model, kernels, threads)

    def trace(
        self, model: Path, facts: DeployedFacts, image: Float32, names: Sequence[str], *, kernels: str
    ) -> Mapping[str, Float32]:
        """Return what flows through the named tensors of a deployed model for one image."""
        from mobilekd.backends._tflite_trace import trace

        del facts
        return trace(model, image, names, kernels)


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
