"""Models on one device: what is pushed once, and the jobs that run there."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mobilekd.benchmarking import tensors
from mobilekd.benchmarking.threads import check_threads
from mobilekd.device import runner, runtimes, web_runtime
from mobilekd.device.full_disk import refuse_full_disk
from mobilekd.device.runner import Job, Outcome
from mobilekd.errors import ConfigError, DeviceError, MissingToolError
from mobilekd.measurement import Measured
from mobilekd.stage import Progress
from mobilekd.transport import Transport
from mobilekd.transports.qemu import Counts, Qemu
from mobilekd.transports.vm import Vm
from mobilekd.transports.web import Web

if TYPE_CHECKING:
    from mobilekd.backend import Float32, TensorFacts

_TIMEOUT_S = 900.0
_OUT = "out.bin"
_LAYERS = "layers.json"
_MKDRUN = f"./{runner.PROGRAM}"
_RUNNERS = {_MKDRUN: runner.PROGRAM, runner.PYTHON_PROGRAM: "python", web_runtime.PROGRAM: "browser"}
_RAN = 2
"""mkdrun's exit code without arguments: it started."""
_IMPORTED = 6
"""The exit code of either runner for a model that is not there: the runtime was loaded before."""


def has_runtime(model: Measured) -> bool:
    """Return whether mkdrun can run a model: its backend has a runtime for devices."""
    return model.facts.runnable and str(model.facts.deployment["backend"]) in runtimes.backends()


@dataclass(frozen=True, slots=True)
class Running:
    """A device with the runner and the runtimes on it.

    Attributes:
        transport: The device, taken.
        names: Files of the kit.
        prefix: Words before the runner, where it brings its own C library or is in Python.
        scratch: A directory of this host.
        threads, cores: Of every job.
        program: The runner's word on the command line: mkdrun, or its twin in Python or in a page.
    """

    transport: Transport
    names: tuple[str, ...]
    prefix: tuple[str, ...]
    scratch: Path
    threads: int
    cores: tuple[int, ...]
    program: str = _MKDRUN

    @property
    def measured_by(self) -> str:
        """Return which runner gives the results: "mkdrun", "python" or "browser"."""
        return _RUNNERS[self.program]

    def job(self, model: Measured, images: "Float32") -> Job:
        """Push a model and its inputs [n, channels, height, width]; return a job that answers them all, untimed."""
        pushed = f"model-{hashlib.sha256(model.name.encode()).hexdigest()[:8]}{model.model.suffix}"
        source = self._input(images, model.facts.input)
        self.transport.push({pushed: model.model, source.name: source})
        return Job(
            backend=str(model.facts.deployment["backend"]),
            model=pushed,
            inputs=(source.name,),
            outputs=(),
            samples=len(images),
            threads=self.threads,
            cores=self.cores,
            name=model.name,
        )

    def answers(self, model: Measured, job: Job) -> "Float32":
        """Return the logits [n, classes] of all of a job's inputs."""
        self.run(replace(job, outputs=(_OUT,)))
        self.transport.pull(_OUT, self.scratch / _OUT)
        return tensors.unpack((self.scratch / _OUT).read_bytes(), model.facts.output, job.samples)

    def run(self, job: Job) -> Outcome:
        """Run a job to its end."""
        return runner.run(self.transport, job, self._argv(job), timeout_s=_TIMEOUT_S, told=self.measured_by)

    def count(self, job: Job) -> tuple[Outcome, tuple[Counts, ...]]:
        """Run a job under qemu-user; return it and the instructions of each timed run, as the plug-in counts them.

        Raises:
            DeviceError: The emulator counted fewer runs than there were.
        """
        outcome, counts = self._counted(job)
        if len(counts) != job.timed_runs:
            raise DeviceError(f"{job.name}: {len(counts)} of {job.timed_runs} runs were counted", code="MKD-507")
        return outcome, counts

    def count_by_clock(self, job: Job) -> tuple[Outcome, tuple[int, ...]]:
        """Run a job on a virtual machine whose clock counts; return it and the instructions of each timed run.

        Those of the kernel are among them. The clock moves in steps of 16.

        Raises:
            DeviceError: There is no such clock.
        """
        if not isinstance(self.transport, Vm) or not self.transport.is_counting:
            raise DeviceError(
                "the device's clock shows time and counts no instructions", hint="Vm(icount=True)", code="MKD-512"
            )
        outcome = self.run(job)
        return outcome, tuple(round(run_ms * 1e6) for run_ms in outcome.latencies_ms)

    def layers(self, job: Job) -> str:
        """Run a job whose timed runs are divided into layers; return what mkdrun or the runtime wrote of them.

        On an emulated CPU its microseconds are instructions.
        """
        divided = replace(job, profile_out=_LAYERS)
        if isinstance(self.transport, Qemu):
            self._counted(divided, clock="instructions")
        else:
            self.run(divided)
        self.transport.pull(_LAYERS, self.scratch / _LAYERS)
        return (self.scratch / _LAYERS).read_text(encoding="utf-8", errors="replace")

    def _counted(self, job: Job, clock: Literal["real", "instructions"] = "real") -> tuple[Outcome, tuple[Counts, ...]]:
        if not isinstance(self.transport, Qemu):
            raise DeviceError(
                "instructions are counted on the emulator only",
                hint="--set profile.device.place=emulator",
                code="MKD-512",
            )
        completed, counts = self.transport.run_counted(self._argv(job), timeout_s=_TIMEOUT_S, clock=clock)
        return runner.outcome(job, completed), counts

    def _argv(self, job: Job) -> list[str]:
        if self.program != _MKDRUN:
            return job.argv((), self.prefix, self.program)
        return job.argv(runner.library_names(job.backend, self.names), self.prefix)

    def _input(self, images: "Float32", facts: "TensorFacts") -> Path:
        """Return the file of some images in a model's own format; models of one format share it."""
        form = repr((facts.dtype, facts.layout, facts.scale, facts.zero_point, images.shape))
        path = self.scratch / f"in-{hashlib.sha256(form.encode()).hexdigest()[:12]}.bin"
        if not path.is_file():
            tensors.write_inputs(images, facts, path)
        return path


def prepare(
    transport: Transport,
    backends: Sequence[str],
    *,
    state: Path,
    scratch: Path,
    threads: int,
    cores: tuple[int, ...],
    progress: Progress,
    choice: Literal["auto", "native", "python"] = "auto",
) -> Running:
    """Put a runner on a device: mkdrun with the runtimes, and a C library of their own where the device's does not do.

    Args:
        transport: The device, taken.
        backends: As "tflite".
        state: Folder of this host for what is built and downloaded for devices.
        scratch: A directory of this host.
        threads: Of every job.
        cores: Of every job.
        progress: Told when something is built or downloaded, and when Python takes mkdrun's place.
        choice: As `DeviceSettings.runner`.

    Raises:
        MissingToolError: No compiler or package index for the device's machine, and no Python with the runtimes on it.
        DeviceError: The runner does not start on the device; the message says what it printed.
        ConfigError: A page is to have more threads than its browser has cores.
        StageError: This host's disk is full.
    """
    plain = Running(transport, (), (), scratch, threads, cores)
    if isinstance(transport, Web):
        facts = transport.facts()
        check_threads(threads, facts.cores, facts.name)
        return replace(plain, program=web_runtime.PROGRAM)
    if choice == "python":
        if lack := _python_lack(transport, backends):
            raise MissingToolError(
                lack, hint='install it on the device, or set profile.device.runner = "native"', code="MKD-302"
            )
        return replace(plain, prefix=runner.PYTHON, program=runner.PYTHON_PROGRAM)
    machine = transport.facts().machine
    try:
        kit = runner.kit(machine, backends, state, progress)
    except (MissingToolError, ConfigError) as cause:
        refuse_full_disk(state, cause)
        if choice == "native":
            raise
        if lack := _python_lack(transport, backends):
            raise MissingToolError(f"{cause.message}; and {lack}", hint=cause.hint, code="MKD-306") from cause
        progress.say(f"{cause.message}: the device's own Python runs the models")
        return replace(plain, prefix=runner.PYTHON, program=runner.PYTHON_PROGRAM)
    return replace(plain, names=tuple(kit), prefix=_started(transport, kit, machine))


def _started(transport: Transport, kit: Mapping[str, Path], machine: str) -> tuple[str, ...]:
    """Push mkdrun and start it once; return the words that it needs before it."""
    transport.push(kit)
    started = transport.run([f"./{runner.PROGRAM}"], timeout_s=60)
    prefix: tuple[str, ...] = ()
    if started.returncode != _RAN and machine == "aarch64":
        prefix = runner.CAPSULE
        transport.push(runner.capsule_files())
        started = transport.run([*prefix, f"./{runner.PROGRAM}"], timeout_s=60)
    if started.returncode != _RAN:
        said = (started.stderr or started.stdout).strip()
        raise DeviceError(
            f"{runner.PROGRAM} does not start on {transport.facts().name} ({machine}): {said}", code="MKD-507"
        )
    return prefix


def _python_lack(transport: Transport, backends: Sequence[str]) -> str:
    """Push the runner in Python; return what the device lacks to run it, or nothing.

    A model that is not there is refused only after the runtime was imported.
    """
    transport.push(runner.python_kit())
    for backend in backends:
        probe = Job(backend, "no-model", ("no-input",), (), 0)
        done = transport.run(probe.argv((), runner.PYTHON, runner.PYTHON_PROGRAM), timeout_s=120)
        if done.returncode != _IMPORTED:
            last = (done.stdout.strip() or done.stderr.strip()).splitlines()[-1:]
            return f"{transport.facts().name} can't run {backend} by Python: {''.join(last) or 'no python3'}"
    return ""
