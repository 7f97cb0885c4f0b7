"""What mkdrun is asked to do, what it answers, and the files that it needs on a device."""

import functools
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from mobilekd.device import building, cpus, runtimes
from mobilekd.device.building import Teller
from mobilekd.errors import DeviceError, MissingToolError
from mobilekd.transport import Completed, Transport

PROGRAM = "mkdrun"
CAPSULE = ("./ld-linux-aarch64.so.1", "--library-path", ".")
"""Words before the program where the device's own C library is none or too old: those files are pushed with it."""

PYTHON = ("python3",)
PYTHON_PROGRAM = "python_runner.py"
"""mkdrun's twin for boards that have the runtimes as Python packages, and its words before the program."""

_CAPSULE_FILES = (
    "ld-linux-aarch64.so.1",
    "libc.so.6",
    "libm.so.6",
    "libgcc_s.so.1",
    "libstdc++.so.6",
    "libdl.so.2",
    "libpthread.so.0",
    "librt.so.1",
)
_PROTOCOL = 1
_SIGNAL_BASE, _SIGNALS = 128, 64
_STDERR_LINES = 8


@dataclass(frozen=True, slots=True)
class Job:
    """One call of mkdrun; every name is of a file in the device's folder.

    Attributes:
        backend: As "tflite".
        model: The model file.
        inputs: For each input of the model a file of `samples` raw tensors, in the model's own type and layout.
        outputs: For each output the file to write; empty when only time is wanted.
        samples: Tensors in each input file.
        warmup_runs, timed_runs: Runs on one sample after all were run once.
        threads: Of the runtime.
        cores: CPUs to run on; empty for any.
        limit_ms: Timed runs go on until this time is over, too (MLPerf Mobile's rule for a release).
        time_sample: Which sample is timed.
        name: Of the model, for messages; empty where its file says enough.
        profile_out: File to write what each layer of the timed runs took; empty for none. Their latencies then mean
            nothing.
    """

    backend: str
    model: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    samples: int
    warmup_runs: int = 0
    timed_runs: int = 0
    threads: int = 1
    cores: tuple[int, ...] = ()
    limit_ms: int | None = None
    time_sample: int = 0
    name: str = ""
    profile_out: str = ""

    def argv(self, libraries: Sequence[str], prefix: Sequence[str] = (), program: str = f"./{PROGRAM}") -> list[str]:
        """Return the command line.

        Args:
            libraries: The runtime's files on the device, as `library_names` gives them.
            prefix: Words before the program, as `CAPSULE` or `PYTHON`.
            program: mkdrun, or its twin in Python.
        """
        words = [*prefix, program, "--backend", runtimes.pin(self.backend).runner]
        words += [word for name in libraries for word in ("--library", f"./{name}")]
        words += ["--model", self.model]
        words += [word for name in self.inputs for word in ("--in", name)]
        words += [word for name in self.outputs for word in ("--out", name)]
        words += ["--warmup", str(self.warmup_runs), "--runs", str(self.timed_runs), "--threads", str(self.threads)]
        words += ["--cores", ",".join(map(str, self.cores))] if self.cores else []
        words += ["--limit-ms", str(self.limit_ms)] if self.limit_ms is not None else []
        words += ["--profile-out", self.profile_out] if self.profile_out else []
        return [*words, "--time-sample", str(self.time_sample)]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What mkdrun measured.

    Attributes:
        machine: `uname -m` of the device.
        runtime_version: As the runtime tells it; empty where it does not.
        load_ms: From the file to a model that is ready to run.
        input_bytes, output_bytes: Of one sample, for each input and output.
        cpu_ms: CPU time of all threads in all timed runs together.
        memory_bytes: Resident before the load, and at the peak; None where it is not told.
        latencies_ms: Wall time of each timed run.
        clock_ms: Smallest step of the clock; 0 where it is too fine to matter.
        inferences: Largest number of runs in a row that share one reading of the clock, each told as their mean: more
            than one where that step is coarse.
    """

    machine: str
    runtime_version: str
    load_ms: float
    input_bytes: tuple[int, ...]
    output_bytes: tuple[int, ...]
    cpu_ms: float
    memory_bytes: tuple[int, int] | None
    latencies_ms: tuple[float, ...]
    clock_ms: float = 0.0
    inferences: int = 1


class _Answer(BaseModel):
    """The last line of mkdrun's stdout, in its own words."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    ok: bool
    protocol: int
    stage: str = ""
    error: str = ""
    backend: str = ""
    machine: str = ""
    runtime_version: str = ""
    load_us: int = 0
    in_bytes: list[int] = []
    out_bytes: list[int] = []
    samples: int = 0
    threads: int = 0
    cpu_us: int = 0
    rss_kb: list[int] = []
    lat_ns: list[int] = []
    clock_ns: int = 0
    inferences: int = 1


def run(transport: Transport, job: Job, argv: Sequence[str], *, timeout_s: float, told: str = PROGRAM) -> Outcome:
    """Run a job on a device where its files are; `argv` is the job's command line there, `told` names the runner.

    Raises:
        DeviceError: It could not be run, died, or did not do all that was asked.
    """
    return outcome(job, transport.run(argv, timeout_s=timeout_s), told)


def outcome(job: Job, completed: Completed, told: str = PROGRAM) -> Outcome:
    """Read the answer of mkdrun, or of its twin that `told` names.

    Raises:
        DeviceError: It died, refused, or answered otherwise than its protocol says; never a figure from half a run.
    """
    failed = functools.partial(_failed, job, completed, told)
    answer = _answer(job, completed, failed)
    if not answer.ok:
        raise failed(f"could not {_VERBS.get(answer.stage, answer.stage)}: {answer.error}")
    if completed.returncode:
        raise failed(f"ended with exit code {completed.returncode} after its answer")
    wanted = job.samples if job.outputs else 0
    if answer.samples != wanted:
        raise failed(f"ran {answer.samples} of {wanted} samples")
    if len(answer.lat_ns) < job.timed_runs or (job.limit_ms is None and len(answer.lat_ns) != job.timed_runs):
        raise failed(f"timed {len(answer.lat_ns)} of {job.timed_runs} runs")
    return Outcome(
        machine=answer.machine,
        runtime_version=answer.runtime_version,
        load_ms=answer.load_us / 1e3,
        input_bytes=tuple(answer.in_bytes),
        output_bytes=tuple(answer.out_bytes),
        cpu_ms=answer.cpu_us / 1e3,
        memory_bytes=(answer.rss_kb[0] * 1024, answer.rss_kb[1] * 1024) if answer.rss_kb else None,
        latencies_ms=tuple(ns / 1e6 for ns in answer.lat_ns),
        clock_ms=answer.clock_ns / 1e6,
        inferences=answer.inferences,
    )


_VERBS = {
    "dlopen": "load the runtime",
    "load": "load the model",
    "run": "run the model",
    "io": "read or write its files",
    "usage": "take its arguments",
}


def python_kit() -> Mapping[str, Path]:
    """Return the one file that a device needs where `PYTHON` runs the models."""
    return {PYTHON_PROGRAM: Path(__file__).with_name(PYTHON_PROGRAM)}


def kit(
    machine: str, backends: Sequence[str], root: Path, progress: Teller, *, capsule: bool = False
) -> Mapping[str, Path]:
    """Return the files that a device needs to run models of some backends, by the name to push them under.

    Args:
        machine: The device's, as "aarch64".
        backends: As "tflite".
        root: State folder.
        progress: Told when something is built or downloaded.
        capsule: Add the C library; jobs then need the prefix `CAPSULE`.

    Raises:
        MissingToolError: No compiler, no package index, or no C library for the capsule.
    """
    files = {PROGRAM: building.runner(machine, root, progress)}
    for backend in backends:
        found = runtimes.runtime(backend, machine, root, progress)
        files |= {file.name: file for file in found.needs}
        files[runtimes.pin(backend).push_as] = found.library
    return {**files, **capsule_files()} if capsule else files


def library_names(backend: str, kit_names: Sequence[str]) -> tuple[str, ...]:
    """Return the names of a runtime's files among those of a kit, in the order to load them: the runtime last."""
    wanted = runtimes.pin(backend)
    needs = tuple(name for name in kit_names if wanted.is_need(name))
    return (*needs, wanted.push_as)


def capsule_files() -> Mapping[str, Path]:
    """Return the arm64 C library of this host's cross packages: the loader and what the runtimes link with.

    Raises:
        MissingToolError: One of them is not installed.
    """
    files = {name: cpus.CROSS_LIBRARIES / name for name in _CAPSULE_FILES}
    for name, file in files.items():
        if not file.is_file():
            raise MissingToolError(
                f"{name} for arm64 is not in {cpus.CROSS_LIBRARIES}",
                hint="apt-get install libc6-dev-arm64-cross libstdc++6-arm64-cross",
                code="MKD-304",
            )
    return files


def _answer(job: Job, completed: Completed, failed: Callable[[str], DeviceError]) -> _Answer:
    lines = completed.stdout.splitlines()
    if not lines or not lines[-1].startswith("{"):
        raise failed(f"{_ending(completed.returncode)} without an answer")
    try:
        answer = _Answer.model_validate_json(lines[-1])
    except ValidationError as cause:
        first = cause.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the line"
        raise failed(f"gave an answer that is cut or wrong ({where}: {first['msg']})") from cause
    if answer.protocol != _PROTOCOL:
        raise failed(f"speaks protocol {answer.protocol}, not {_PROTOCOL}")
    if answer.ok and (len(answer.rss_kb) not in (0, 2) or answer.backend != runtimes.pin(job.backend).runner):
        raise failed("answered for another run")
    return answer


def _ending(code: int) -> str:
    if _SIGNAL_BASE < code <= _SIGNAL_BASE + _SIGNALS:
        known = {int(one): one.name for one in signal.Signals}
        number = code - _SIGNAL_BASE
        return f"was ended by {known.get(number, f'signal {number}')}"
    return f"ended with exit code {code}"


def _failed(job: Job, completed: Completed, told: str, what: str) -> DeviceError:
    said = "".join(f"\n    {line}" for line in completed.stderr.splitlines()[-_STDERR_LINES:])
    return DeviceError(
        f"{job.name or job.model} ({job.backend}): {told} {what}; the run is incomplete{said}", code="MKD-507"
    )
