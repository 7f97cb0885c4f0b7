"""ONNX Runtime: fp32, fp16, and int8 as a QDQ graph that its CPU provider fuses to integer kernels throughout.

Integer kernels on x86 without VNNI add pairs of uint8 x int8 products in int16, which can saturate; sessions
here set "session.x64quantprecision" on such a machine, and an app must do the same. It costs about 10 %.
"""

import platform
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from importlib import metadata, util
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from mobilekd.backend import Conversion, DeployedFacts, Float32, TensorFacts
from mobilekd.errors import StageError
from mobilekd.profile import Deployment
from mobilekd.quant_table import load_table

if TYPE_CHECKING:
    from onnx import ModelProto

_AVX2_NOTE = 'x86 without VNNI: set the session option "session.x64quantprecision" to "1", else sums can saturate'
_FP16_NOTE = "the CPU provider computes fp16 nodes without a half-precision kernel in float32"


class Onnxruntime:
    """Microsoft's runtime; its own QDQ format is the int8 file."""

    precisions: ClassVar[tuple[str, ...]] = ("fp32", "fp16", "int8")
    symmetries: ClassVar[tuple[str, ...]] = ("symmetric", "asymmetric")
    kernels: ClassVar[tuple[str, ...]] = ("default",)
    tools: ClassVar[tuple[str, ...]] = ("onnx", "onnxruntime")
    toolchains: ClassVar[tuple[str, ...]] = ()
    depends_on_machine: ClassVar[bool] = False
    output_parity_steps: ClassVar[float] = 1.0

    def missing(self) -> str | None:
        """Return what is not installed."""
        absent = [name for name in ("onnx", "onnxruntime") if util.find_spec(name) is None]
        return f"{', '.join(absent)} is not installed: pip install 'mobilekd[onnx]'" if absent else None

    def convert(self, request: Conversion) -> DeployedFacts:
        """Write DEPLOYMENT.onnx; for int8, prove by ONNX Runtime's own optimized graph what runs in integers."""
        from mobilekd import graph
        from mobilekd.backends import _onnx_facts, _ort_check

        deployment = request.deployment
        file = request.out / f"{deployment.name}.onnx"
        _write(request, file)
        model = graph.load(file)
        optimized = _optimized(file, request.work / "optimized.onnx")
        is_int8 = deployment.precision == "int8"
        floats, others = _ort_check.float_nodes(optimized) if is_int8 else ((), ())
        request.log.parent.mkdir(parents=True, exist_ok=True)
        with request.log.open("a", encoding="utf-8") as log:
            log.write(f"graph that ONNX Runtime runs on this host: {_ort_check.op_counts(optimized.graph.node)}\n")
        table = load_table(request.quant_table).by_name() if deployment.io == "int8" else {}
        return DeployedFacts(
            deployment=deployment.model_dump(mode="json"),
            file=file.name,
            runnable=True,
            input=_onnx_facts.tensor_facts(model, "input", table.get(model.graph.input[0].name)),
            output=_onnx_facts.tensor_facts(model, "output", table.get(model.graph.output[0].name)),
            float_ops=floats,
            other_float_ops=others,
            int8_tensors=graph.int8_initializers(model),
            tools={name: metadata.version(name) for name in self.tools},
            note=_note(request),
        )

    def describe(self, model: Path) -> DeployedFacts:
        """Return what an .onnx file says of itself; int8 when it stores int8 or uint8 weights."""
        from google.protobuf.message import DecodeError

        from mobilekd import graph
        from mobilekd.backends import _onnx_facts

        try:
            proto = graph.load(model)
        except DecodeError as cause:
            raise StageError(f"{model} is no ONNX model: {cause}", code="MKD-422") from cause
        int8 = graph.int8_initializers(proto)
        return DeployedFacts(
            deployment=Deployment(backend="onnxruntime", precision="int8" if int8 else "fp32").model_dump(mode="json"),
            file=model.name,
            runnable=True,
            input=_onnx_facts.tensor_facts(proto, "input"),
            output=_onnx_facts.tensor_facts(proto, "output"),
            float_ops=(),
            other_float_ops=(),
            int8_tensors=int8,
            tools={},
        )

    def open(self, model: Path, facts: DeployedFacts, *, kernels: str, threads: int) -> "OrtSession":
        """Load a model on the CPU provider."""
        del kernels
        return OrtSession(_load(model, threads=threads), facts.input, facts.output)

    def trace(
        self, model: Path, facts: DeployedFacts, image: Float32, names: Sequence[str], *, kernels: str
    ) -> Mapping[str, Float32]:
        """Return the named tensors, read as integers from the graph that ONNX Runtime optimized.

        Raises:
            StageError: Reading the tensors made ONNX Runtime choose other kernels, so they would not be the model's.
        """
        from mobilekd import graph
        from mobilekd.backends import _ort_check, _ort_trace

        del kernels
        file = graph.load(model)
        probes = _ort_trace.probes(file, names)
        with tempfile.TemporaryDirectory() as folder:
            plain, probed = Path(folder, "plain.onnx"), Path(folder, "probed.onnx")
            probed.write_bytes(_ort_trace.with_outputs(file, probes).SerializeToString())
            before = _optimized(model, plain)
            session = _load(probed, threads=1, optimized=plain)
            kinds = [_ort_check.integer_kernels(one) for one in (before, graph.load(plain))]
        if kinds[0] != kinds[1]:
            raise StageError(
                f"{model.name} can't be traced: with its tensors as outputs it runs other kernels", code="MKD-422"
            )
        tensors = [probe.tensor for probe in probes.values()]
        values = session.run(tensors, {facts.input.name: _quantized(image, facts.input)}) if tensors else []
        return {name: probe.real(value) for (name, probe), value in zip(probes.items(), values, strict=True)}


class OrtSession:
    """One loaded model; its input lies in memory of the runtime before `invoke`."""

    def __init__(self, session: Any, image: TensorFacts, logits: TensorFacts) -> None:
        self._session = session
        self._image = image
        self._logits = logits
        self._binding = session.io_binding()
        self._binding.bind_output(logits.name, "cpu")

    def load_input(self, image: Float32) -> None:
        """Copy one image into the runtime, quantized when the model's input is int8."""
        import onnxruntime

        value = onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(_quantized(image, self._image)))
        self._binding.bind_ortvalue_input(self._image.name, value)

    def invoke(self) -> None:
        """Run the model once."""
        self._session.run_with_iobinding(self._binding)

    def read_output(self) -> Float32:
        """Return the logits [classes]."""
        logits = self._binding.copy_outputs_to_cpu()[0].reshape(-1)
        facts = self._logits
        if facts.scale is None or facts.zero_point is None:
            return np.asarray(logits, np.float32)
        return np.asarray(np.float32(facts.scale) * (logits.astype(np.float32) - facts.zero_point), np.float32)


def lacks_vnni() -> bool:
    """Return True on x86 unless the CPU says that it has VNNI."""
    cpuinfo = Path("/proc/cpuinfo")
    has_vnni = cpuinfo.is_file() and "vnni" in cpuinfo.read_text(encoding="utf-8")
    return platform.machine() in ("x86_64", "AMD64") and not has_vnni


def _quantized(image: Float32, facts: TensorFacts) -> NDArray[Any]:
    if facts.scale is None or facts.zero_point is None:
        return image.astype(np.float32)
    steps = np.rint(image / np.float32(facts.scale)) + facts.zero_point
    return np.asarray(np.clip(steps, -128, 127), np.int8)


def _write(request: Conversion, file: Path) -> None:
    from mobilekd import graph
    from mobilekd.backends import _onnx_fp16, _ort_check, _ort_graph, _readback

    if request.deployment.precision == "fp32":
        shutil.copyfile(request.float_onnx, file)
        return
    if request.deployment.precision == "fp16":
        graph.save(_onnx_fp16.to_fp16(graph.load(request.float_onnx)), file)
        return
    table = load_table(request.quant_table)
    model = _ort_graph.fuse_ready(graph.load(request.qdq_onnx))
    if request.deployment.io == "int8":
        model = _ort_graph.with_int8_io(model, table)
    graph.save(model, file)
    _ort_check.check_against_table(file, table, _readback.trained(request.qdq_onnx, table))


def _note(request: Conversion) -> str:
    if request.deployment.precision == "fp16":
        return _FP16_NOTE
    return _AVX2_NOTE if request.deployment.precision == "int8" and request.target.abi == "x86_64" else ""


def _optimized(file: Path, to: Path) -> "ModelProto":
    """Return the graph that ONNX Runtime really runs: all optimizations on."""
    from mobilekd import graph

    _load(file, threads=1, optimized=to)
    return graph.load(to)


def _load(file: Path, *, threads: int, optimized: Path | None = None) -> Any:
    """Return an InferenceSession on the CPU provider.

    Raises:
        StageError: The runtime refused the model.
    """
    import onnxruntime as ort

    ort.disable_telemetry_events()
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    if lacks_vnni():
        options.add_session_config_entry("session.x64quantprecision", "1")
    if optimized:
        options.optimized_model_filepath = str(optimized)
    refusals = ort.capi.onnxruntime_pybind11_state
    try:
        return ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except (refusals.Fail, refusals.NotImplemented, refusals.InvalidGraph, refusals.RuntimeException) as cause:
        raise StageError(
            f"ONNX Runtime refused {file.name}: {cause}",
            hint="an operator has no kernel: change the student",
            code="MKD-422",
        ) from cause
