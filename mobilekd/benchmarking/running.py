"""Models on one device: what is pushed once, and the jobs that run there."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mobilekd.benchmarking import tensors
from mobilekd.device import runner, runtimes
from mobilekd.device.runner import Job, Outcome
from mobilekd.errors import DeviceError
from mobilekd.measurement import Measured
from mobilekd.stage import Progress
from mobilekd.transport import Transport
from mobilekd.transports.qemu import Counts, Qemu
from mobilekd.transports.vm import Vm

if TYPE_CHECKING:
    from mobilekd.backend import Float32, TensorFacts

_TIMEOUT_S = 900.0
_OUT = "out.bin"
_RAN = 2
"""mkdrun's exit code without arguments: it started."""


def has_runtime(model: Measured) -> bool:
    """Return whether mkdrun can run a model: its backend has a runtime for devices."""
    return model.facts.runnable and str(model.facts.deployment["backend"]) in runtimes.backends()


@dataclass(frozen=True, slots=True)
class Running:
    """A device with the runner and the runtimes on it.

    Attributes:
        transport: The device, taken.
        names: Files of the kit.
        prefix: Words before the runner, where it brings its own C library.
        scratch: A directory of this host.
        threads, cores: Of every job.
    """

    transport: Transport
    names: tuple[str, ...]
    prefix: tuple[str, ...]
    scratch: Path
    threads: int
    cores: tuple[int, ...]

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
        return runner.run(self.transport, job, self._libraries(job), timeout_s=_TIMEOUT_S, prefix=self.prefix)

    def count(self, job: Job) -> tuple[Outcome, tuple[Counts, ...]]:
        """Run a job under qemu-user; return it and the instructions of each timed run, as the plug-in counts them.

        Raises:
            DeviceError: The emulator counted fewer runs than there were.
        """
        if not isinstance(self.transport, Qemu):
            raise DeviceError(
                "instructions are counted on the emulator only", hint="--set profile.device.place=emulator"
            )
        argv = job.argv(self._libraries(job), self.prefix)
        completed, counts = self.transport.run_counted(argv, timeout_s=_TIMEOUT_S)
        outcome = runner.outcome(job, completed)
        if len(counts) != job.timed_runs:
            raise DeviceError(f"{job.name}: {len(counts)} of {job.timed_runs} runs were counted")
        return outcome, counts

    def count_by_clock(self, job: Job) -> tuple[Outcome, tuple[int, ...]]:
        """Run a job on a virtual machine whose clock counts; return it and the instructions of each timed run.

        Those of the kernel are among them. The clock moves in steps of 16.

        Raises:
            DeviceError: There is no such clock.
        """
        if not isinstance(self.transport, Vm) or not self.transport.is_counting:
            raise DeviceError("the device's clock shows time and counts no instructions", hint="Vm(icount=True)")
        outcome = self.run(job)
        return outcome, tuple(round(run_ms * 1e6) for run_ms in outcome.latencies_ms)

    def _libraries(self, job: Job) -> Sequence[str]:
        return runner.library_names(job.backend, self.names)

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
) -> Running:
    """Put the runner and the runtimes on a device, with a C library of their own where the device's does not do.

    Raises:
        MissingToolError: No compiler or package index for the device's machine.
        DeviceError: The runner does not start on the device; the message says what it printed.
    """
    machine = transport.facts().machine
    kit = runner.kit(machine, backends, state, progress)
    transport.push(kit)
    started = transport.run([f"./{runner.PROGRAM}"], timeout_s=60)
    prefix: tuple[str, ...] = ()
    if started.returncode != _RAN and machine == "aarch64":
        prefix = runner.CAPSULE
        capsule = runner.capsule_files()
        transport.push(capsule)
        started = transport.run([*prefix, f"./{runner.PROGRAM}"], timeout_s=60)
    if started.returncode != _RAN:
        said = (started.stderr or started.stdout).strip()
        raise DeviceError(f"{runner.PROGRAM} does not start on {transport.facts().name} ({machine}): {said}")
    return Running(transport, tuple(kit), prefix, scratch, threads, cores)
