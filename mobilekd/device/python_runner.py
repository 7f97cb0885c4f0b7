"""mkdrun in Python, for boards that mkdrun is not built for but that have a runtime's wheel.

python3 python_runner.py --backend litert|onnxruntime|mnn --model M --in FILE... [--out FILE...]
        [--warmup N] [--runs N] [--threads N] [--cores LIST|MASK] [--limit-ms M] [--time-sample I]

Command line, files, the JSON object on the last line of stdout and exit codes are mkdrun's (native/mkdrun.c); --library
is taken and not used, as the wheel is what Python imports. It is pushed alone, so it imports nothing of mobilekd, and
it is written for Python 3.8. A call from Python takes some microseconds more than one from C.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

PROTOCOL = 1
USAGE, SYMBOL, LOAD, RUN, IO = 2, 3, 4, 5, 6
_STAGES = {USAGE: "usage", SYMBOL: "dlopen", LOAD: "load", RUN: "run", IO: "io"}
_SIZED_LIKE_C = 1024  # CPUs that a set of the C library holds


class Refusal(Exception):  # noqa: N818 - it is what is printed, not what went wrong in here
    """Something could not be done: the exit code, and why."""

    def __init__(self, code: int, message: str) -> None:
        """Keep both."""
        super().__init__(message)
        self.code = code


class _Runtime:
    def __init__(self) -> None:
        self._np = _imported("numpy")
        self.failures: tuple[type[Exception], ...] = (RuntimeError, ValueError)
        self.version: str | None = None
        self.shapes_in: list[tuple[tuple[int, ...], Any]] = []
        self.shapes_out: list[tuple[tuple[int, ...], Any]] = []


class _Litert(_Runtime):
    """LiteRT by its Python package, or by the older one of TensorFlow Lite."""

    def __init__(self) -> None:
        super().__init__()
        self._module = _imported("ai_edge_litert.interpreter", "tflite_runtime.interpreter")

    def load(self, model: str, threads: int) -> None:
        """Read a model and take memory for it."""
        self._net = self._module.Interpreter(model_path=model, num_threads=threads)
        self._net.allocate_tensors()
        self._ins, self._outs = self._net.get_input_details(), self._net.get_output_details()
        self.shapes_in = [(tuple(int(size) for size in one["shape"]), one["dtype"]) for one in self._ins]
        self.shapes_out = [(tuple(int(size) for size in one["shape"]), one["dtype"]) for one in self._outs]

    def write(self, index: int, value: Any) -> None:
        self._net.set_tensor(self._ins[index]["index"], value)

    def invoke(self) -> None:
        self._net.invoke()

    def read(self, index: int) -> Any:
        return self._net.get_tensor(self._outs[index]["index"])


class _Onnxruntime(_Runtime):
    """ONNX Runtime by its Python package."""

    def __init__(self) -> None:
        os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # it reports to its maker unless told before it is loaded
        super().__init__()
        self._module = _imported("onnxruntime")
        state = vars(self._module.capi.onnxruntime_pybind11_state).values()
        self.failures += tuple(one for one in state if isinstance(one, type) and issubclass(one, Exception))
        self.version = str(self._module.__version__)

    def load(self, model: str, threads: int) -> None:
        """Make a session with the options that mkdrun sets."""
        options = self._module.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.graph_optimization_level = self._module.GraphOptimizationLevel.ORT_ENABLE_ALL
        if _saturates():
            options.add_session_config_entry("session.x64quantprecision", "1")
        self._net = self._module.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self.shapes_in = [self._shape(one) for one in self._net.get_inputs()]
        self.shapes_out = [self._shape(one) for one in self._net.get_outputs()]
        self._in_names = [one.name for one in self._net.get_inputs()]
        self._out_names = [one.name for one in self._net.get_outputs()]
        self._fed: dict[str, Any] = {}

    def _shape(self, tensor: Any) -> tuple[tuple[int, ...], Any]:
        word = str(tensor.type)[len("tensor(") : -1]
        word = {"float": "float32", "double": "float64", "bool": "bool_"}.get(word, word)
        if not hasattr(self._np, word):
            raise Refusal(LOAD, f"a tensor is a {tensor.type}, which is not plain numbers")
        sizes = [size if isinstance(size, int) else 0 for size in tensor.shape]
        sizes[:1] = [max(1, size) for size in sizes[:1]]  # a batch of any size: ours is 1
        if 0 in sizes:
            raise Refusal(LOAD, f"dimension {sizes.index(0)} of a tensor is not fixed")
        return tuple(sizes), getattr(self._np, word)

    def write(self, index: int, value: Any) -> None:
        self._fed[self._in_names[index]] = value

    def invoke(self) -> None:
        self._results = self._net.run(self._out_names, self._fed)

    def read(self, index: int) -> Any:
        return self._results[index]


class _Mnn(_Runtime):
    """MNN by its Python package: models of one input and one output, as in mkdrun."""

    def __init__(self) -> None:
        super().__init__()
        self._module = _imported("MNN")
        self.failures = (Exception,)  # what MNN raises is nothing narrower
        self.version = str(self._module.version()) if hasattr(self._module, "version") else None

    def load(self, model: str, threads: int) -> None:
        """Make a session with the options that mkdrun sets."""
        self._net = self._module.Interpreter(model)
        self._session = self._net.createSession({"backend": "CPU", "precision": "high", "numThread": threads})
        for what, all_of in (("inputs", self._net.getSessionInputAll), ("outputs", self._net.getSessionOutputAll)):
            count = len(all_of(self._session))
            if count != 1:
                raise Refusal(LOAD, f"MNN: the model has {count} {what}; models with one are run here")
        self._in = self._net.getSessionInput(self._session)
        self._out = self._net.getSessionOutput(self._session)
        self.shapes_in, self.shapes_out = [self._shape(self._in)], [self._shape(self._out)]
        self._result = self._host(self._out, self._np.zeros(self.shapes_out[0][0], self.shapes_out[0][1]))

    def _shape(self, tensor: Any) -> tuple[tuple[int, ...], Any]:
        known = {self._module.Halide_Type_Float: self._np.float32, self._module.Halide_Type_Int: self._np.int32}
        shape = tuple(int(size) for size in tensor.getShape())
        if tensor.getDataType() not in known or any(size < 1 for size in shape):
            raise Refusal(LOAD, "MNN: the type or shape of the input or output is not fixed")
        return shape, known[tensor.getDataType()]

    def _host(self, tensor: Any, value: Any) -> Any:
        """Return a tensor in plain NCHW (NHWC where the model is) of some values."""
        nhwc, nchw = self._module.Tensor_DimensionType_Tensorflow, self._module.Tensor_DimensionType_Caffe
        layout = nhwc if tensor.getDimensionType() == nhwc else nchw
        return self._module.Tensor(value.shape, tensor.getDataType(), value, layout)

    def write(self, index: int, value: Any) -> None:
        del index
        if not self._in.copyFrom(self._host(self._in, value)):
            raise Refusal(RUN, "MNN: the input could not be copied")

    def invoke(self) -> None:
        status = self._net.runSession(self._session)
        if status != 0:
            raise Refusal(RUN, f"MNN: running the model ended with code {status}")

    def read(self, index: int) -> Any:
        del index
        if not self._out.copyToHostTensor(self._result):
            raise Refusal(RUN, "MNN: the output could not be copied")
        return self._np.array(self._result.getNumpyData())


_RUNTIMES: dict[str, Any] = {"litert": _Litert, "onnxruntime": _Onnxruntime, "mnn": _Mnn}


def _imported(*names: str) -> Any:
    """Return the first of some modules that is installed."""
    lacks = []
    for name in names:
        try:
            return importlib.import_module(name)
        except ImportError as cause:
            lacks.append(f"{name}: {cause}")
    raise Refusal(SYMBOL, "; ".join(lacks))


def _saturates() -> bool:
    """Return True on x86 without VNNI: int8 kernels add pairs in int16 there unless asked for those that do not."""
    if os.uname().machine != "x86_64":
        return False
    return "vnni" not in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")


class Options:
    """The command line."""

    def __init__(self, words: list[str]) -> None:
        """Read it."""
        self.backend = self.model = self.cores = ""
        self.ins: list[str] = []
        self.outs: list[str] = []
        self.numbers = {"--warmup": 0, "--runs": 0, "--threads": 1, "--limit-ms": 0, "--time-sample": 0}
        for at in range(0, len(words), 2):
            if at + 1 == len(words):
                raise Refusal(USAGE, f"'{words[at]}' stands without a value")
            self._take(words[at], words[at + 1])
        if not (self.backend and self.model and self.ins):
            raise Refusal(USAGE, "--backend, --model and --in are needed")

    def _take(self, key: str, value: str) -> None:
        if key in self.numbers:
            self.numbers[key] = _number(key, value, least=1 if key == "--threads" else 0)
        elif key == "--backend":
            if value not in _RUNTIMES:
                raise Refusal(USAGE, f"--backend is '{value}'; known: {', '.join(_RUNTIMES)}")
            self.backend = value
        elif key in ("--model", "--cores"):
            setattr(self, key[2:], value)
        elif key in ("--in", "--out"):
            (self.ins if key == "--in" else self.outs).append(value)
        elif key != "--library":
            raise Refusal(USAGE, f"unknown option '{key}'")


def _number(key: str, text: str, *, least: int) -> int:
    digits = text[1:] if text[:1] in ("+", "-") else text
    if not digits.isdigit() or int(text) < least:
        raise Refusal(USAGE, f"{key} is '{text}', not a number of at least {least}")
    return int(text)


def _pin(cores: str) -> None:
    """Run on a list of CPUs as "0-3,6", or on those of a mask as "0xf"."""
    refusal = Refusal(USAGE, f"--cores is '{cores}', neither a list as 0-3 nor a mask as 0xf")
    chosen = set()
    try:
        if cores.startswith("0x"):
            chosen = {core for core in range(64) if int(cores, 16) >> core & 1}
        else:
            for part in cores.split(","):
                first, _, last = part.partition("-")
                chosen |= _span(int(first), int(last or first))
    except ValueError as cause:
        raise refusal from cause
    if not chosen:
        raise refusal
    try:
        os.sched_setaffinity(0, chosen)
    except OSError as cause:
        raise Refusal(USAGE, f"can't run on cores {cores}: {cause.strerror}") from cause


def _span(first: int, last: int) -> set[int]:
    if not 0 <= first <= last < _SIZED_LIKE_C:
        raise ValueError
    return set(range(first, last + 1))


def _resident_kb() -> int:
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * (os.sysconf("SC_PAGE_SIZE") // 1024)


def _peak_kb() -> int:
    lines = Path("/proc/self/status").read_text(encoding="utf-8", errors="replace").splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), 0)


def _bytes_of(tensors: list[tuple[tuple[int, ...], Any]]) -> list[int]:
    numpy = _imported("numpy")
    return [int(numpy.prod(shape, dtype=numpy.int64)) * numpy.dtype(dtype).itemsize for shape, dtype in tensors]


def _samples(options: Options, runtime: Any) -> list[Any]:
    """Return each input file as an array [samples, *shape]."""
    numpy = _imported("numpy")
    arrays: list[Any] = []
    for name, (shape, dtype), one in zip(options.ins, runtime.shapes_in, _bytes_of(runtime.shapes_in)):  # noqa: B905
        try:
            content = Path(name).read_bytes()
        except OSError as cause:
            raise Refusal(IO, f"{name}: {cause.strerror}") from cause
        if not content or len(content) % one:
            raise Refusal(IO, f"{name} has {len(content)} bytes, which is no multiple of the input's {one}")
        arrays.append(numpy.frombuffer(content, dtype).reshape((-1, *shape)))
        if len(arrays[-1]) != len(arrays[0]):
            holds = f"{options.ins[0]} holds {len(arrays[0])}"
            raise Refusal(IO, f"{holds} samples and {name} holds {len(arrays[-1])}")
    sample = options.numbers["--time-sample"]
    if sample >= len(arrays[0]):
        raise Refusal(USAGE, f"--time-sample is {sample}, and there are {len(arrays[0])} samples")
    return arrays


def _feed(runtime: Any, arrays: list[Any], sample: int) -> None:
    for index, array in enumerate(arrays):
        runtime.write(index, array[sample])


def _opened(path: Path) -> BinaryIO:
    """Return a file to write, new: the name may be a link to one that others share."""
    if path.is_symlink() or path.exists():
        path.unlink()
    return path.open("wb")


def _run_samples(options: Options, runtime: Any, arrays: list[Any]) -> None:
    numpy = _imported("numpy")
    try:
        with contextlib.ExitStack() as stack:
            files = [stack.enter_context(_opened(Path(name))) for name in options.outs]
            for sample in range(len(arrays[0])):
                _feed(runtime, arrays, sample)
                runtime.invoke()
                for index, file in enumerate(files):
                    file.write(numpy.ascontiguousarray(runtime.read(index)).tobytes())
    except OSError as cause:
        raise Refusal(IO, f"{cause.filename}: {cause.strerror}") from cause


def _time_runs(options: Options, runtime: Any, arrays: list[Any]) -> tuple[list[int], int]:
    """Return the nanoseconds of each timed run, and the CPU time of all."""
    sample, limit_ns = options.numbers["--time-sample"], options.numbers["--limit-ms"] * 1_000_000
    for _ in range(options.numbers["--warmup"]):
        _feed(runtime, arrays, sample)
        runtime.invoke()
    times: list[int] = []
    cpu_ns, started = 0, time.perf_counter_ns()
    while len(times) < options.numbers["--runs"] or (limit_ns and time.perf_counter_ns() - started < limit_ns):
        _feed(runtime, arrays, sample)
        cpu, begin = time.process_time_ns(), time.perf_counter_ns()
        runtime.invoke()
        end = time.perf_counter_ns()
        cpu_ns += time.process_time_ns() - cpu
        times.append(end - begin)
    return times, cpu_ns


def _loaded(options: Options, runtime: Any) -> int:
    """Load the model; return the microseconds that it took."""
    if not os.access(options.model, os.R_OK):
        reason = os.strerror(errno.EACCES if Path(options.model).exists() else errno.ENOENT)
        raise Refusal(IO, f"{options.model}: {reason}")
    begin = time.perf_counter_ns()
    try:
        runtime.load(options.model, options.numbers["--threads"])
    except Refusal:
        raise
    except runtime.failures as cause:
        raise Refusal(LOAD, str(cause)) from cause
    took = (time.perf_counter_ns() - begin) // 1000
    for word, given, has in (("in", options.ins, runtime.shapes_in), ("out", options.outs, runtime.shapes_out)):
        if len(given) != len(has) and (word == "in" or given):
            raise Refusal(USAGE, f"the model has {len(has)} {word}puts, and --{word} stands {len(given)} times")
    return took


def run(words: list[str]) -> dict[str, Any]:
    """Do what the command line says; return what mkdrun answers.

    Raises:
        Refusal: It could not be done.
    """
    options = Options(words)
    if options.cores:
        _pin(options.cores)
    runtime = _RUNTIMES[options.backend]()
    before_kb = _resident_kb()
    load_us = _loaded(options, runtime)
    arrays = _samples(options, runtime)
    try:
        if options.outs:
            _run_samples(options, runtime, arrays)
        times, cpu_ns = _time_runs(options, runtime, arrays)
    except Refusal:
        raise
    except runtime.failures as cause:
        raise Refusal(RUN, str(cause)) from cause
    head = {"ok": True, "protocol": PROTOCOL, "backend": options.backend, "machine": os.uname().machine}
    told = {"runtime_version": runtime.version} if runtime.version else {}
    sizes = {"in_bytes": _bytes_of(runtime.shapes_in), "out_bytes": _bytes_of(runtime.shapes_out)}
    done = {"samples": len(arrays[0]) if options.outs else 0, "threads": options.numbers["--threads"]}
    cost = {"load_us": load_us, "cpu_us": cpu_ns // 1000, "rss_kb": [before_kb, _peak_kb()], "lat_ns": times}
    return {**head, **told, **sizes, **done, **cost}


def main() -> NoReturn:
    """Print one JSON object, the last line of stdout; what runtimes print goes to stderr."""
    stdout, code = os.fdopen(os.dup(1), "w", encoding="ascii"), 0
    os.dup2(2, 1)
    try:
        answer = run(sys.argv[1:])
    except Refusal as refusal:
        code = refusal.code
        answer = {"ok": False, "protocol": PROTOCOL, "stage": _STAGES[code], "error": str(refusal)}
    stdout.write(json.dumps(answer, separators=(",", ":")) + "\n")
    stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # runtimes crash in their destructors more often than in their work, so none is run


if __name__ == "__main__":
    main()
