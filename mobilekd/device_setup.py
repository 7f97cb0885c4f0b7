"""Prepare the emulator of a profile: build, download, check; without root, and only what is not there."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from mobilekd.device import building, cpus, guest, runner, runtimes
from mobilekd.device.runner import Job
from mobilekd.device_doctor import deployed_backends
from mobilekd.device_tools import cross_compiler, emulator_tools, machine_tools, pip, program, remedy
from mobilekd.errors import ConfigError, DeviceError, MissingToolError
from mobilekd.profile import Profile
from mobilekd.setup_steps import Step, Work, done, told
from mobilekd.stage import Progress
from mobilekd.transport import Completed
from mobilekd.transports.qemu import Qemu
from mobilekd.transports.vm import Vm

_MACHINE = "aarch64"
_RUN_TIMEOUT_S = 120.0
_EXIT_USAGE, _EXIT_IO = 2, 6


def setup(profile: Profile, state: Path, progress: Progress, *, with_machine: bool) -> tuple[Step, ...]:
    """Return the steps that prepared the emulator, each with its time.

    Args:
        profile: Whose CPU and backends.
        state: Folder of this host for what is built and downloaded for devices.
        progress: Told of each step that ends.
        with_machine: Make the virtual machine, too, and boot it once.

    Raises:
        ConfigError: The profile emulates nothing, or the folder can't be written.
        MissingToolError: A program is not installed (the hint is one command for all of them), or no package index or
            mirror answers.
        StageError: The disk is full, or a compiler refused.
        DeviceError: The runner or a runtime does not start on the emulated CPU.
        VerificationError: A downloaded runtime is not the one that was pinned.
    """
    _check_emulated(profile)
    need_tools(profile, state, with_machine=with_machine)
    with told(state):
        state.mkdir(parents=True, exist_ok=True)
        works = [*_emulator(profile, state, progress), *(_machine(profile, state, progress) if with_machine else ())]
        return tuple(done(work, progress) for work in works)


def need_tools(profile: Profile, state: Path, *, with_machine: bool) -> None:
    """Accept a host that has all programs of the setup.

    Raises:
        MissingToolError: One is not there; all of them are named, and the hint is one command.
    """
    absent = any(runtimes.find(name, _MACHINE, state) is None for name in deployed_backends(profile))
    tools = [cross_compiler(is_needed=True), *emulator_tools(is_needed=True), pip(is_needed=absent)]
    if with_machine:
        tools += machine_tools(is_needed=True)
        tools.append(program("machine", _via(profile), is_needed=True))
    missing = [tool for tool in tools if tool.is_needed and not tool.is_ok]
    if missing:
        names = ", ".join(tool.name for tool in missing)
        raise MissingToolError(f"the emulator of {profile.name} misses: {names}", hint=remedy(missing), code="MKD-304")


def _check_emulated(profile: Profile) -> None:
    if profile.target.abi not in cpus.EMULATED_ABIS:
        raise ConfigError(
            f"profile {profile.name} is for {profile.target.abi}; emulated are {' and '.join(cpus.EMULATED_ABIS)}",
            hint="mobilekd devices list shows what each profile is measured on",
            code="MKD-231",
        )
    if not profile.device.cpu:
        raise ConfigError(
            f"profile {profile.name} names no CPU to emulate",
            hint=f"--set profile.device.cpu=NAME; known: {', '.join(cpus.CPUS)}",
            code="MKD-231",
        )
    if not deployed_backends(profile):
        names = ", ".join(dict.fromkeys(one.backend for one in profile.deploy))
        raise ConfigError(
            f"profile {profile.name} has no backend with a runtime for devices: {names}",
            hint=f"those that do: {', '.join(runtimes.backends())}",
            code="MKD-232",
        )


def _emulator(profile: Profile, state: Path, progress: Progress) -> Iterator[Work]:
    cpu = cpus.cpu(profile.device.cpu)

    def fetched(backend: str) -> Work:
        pin = runtimes.pin(backend)
        return Work(
            f"{backend}: {pin.distribution} {pin.version}",
            lambda: runtimes.find(backend, _MACHINE, state) is not None,
            lambda: str(runtimes.runtime(backend, _MACHINE, state, progress).library),
        )

    yield Work(
        "runner",
        lambda: building.find_runner(_MACHINE, state) is not None,
        lambda: str(building.runner(_MACHINE, state, progress)),
    )
    yield Work(
        "plug-in that counts",
        lambda: building.find_counting_plugin(state) is not None,
        lambda: str(building.counting_plugin(state, progress)),
    )
    yield from (fetched(backend) for backend in deployed_backends(profile))
    yield Work(f"CPU {cpu.name}", lambda: cpus.is_written(cpu, state), lambda: str(cpus.prefix(cpu, state)))
    yield Work("check", None, lambda: _check(profile, state, progress))


def _machine(profile: Profile, state: Path, progress: Progress) -> Iterator[Work]:
    yield Work(
        "arm64 machine",
        lambda: guest.find(state) is not None,
        lambda: str(guest.prepare(state, progress.say).kernel.parent),
    )
    yield Work("boot", None, lambda: _boot(profile, state))


def _check(profile: Profile, state: Path, progress: Progress) -> str:
    """Start the runner, and let it load each runtime, on the emulated CPU."""
    backends = deployed_backends(profile)
    kit = runner.kit(_MACHINE, backends, state, progress)
    with Qemu(state, profile.device.cpu) as emulator:
        emulator.push(kit)
        # With the plug-in: qemu ends where it can't load it.
        started, _ = emulator.run_counted([f"./{runner.PROGRAM}"], timeout_s=_RUN_TIMEOUT_S)
        _expect(started, _EXIT_USAGE, f"{runner.PROGRAM} does not start")
        for backend in backends:
            # A runtime is loaded before the model is opened, so a model that is not there is as far as this goes.
            job = Job(backend=backend, model="none", inputs=("none",), outputs=(), samples=1)
            loaded = emulator.run(job.argv(runner.library_names(backend, tuple(kit))), timeout_s=_RUN_TIMEOUT_S)
            _expect(loaded, _EXIT_IO, f"{runner.PROGRAM} can't load the runtime of {backend}")
        return f"{runner.PROGRAM} loads {_listed(backends)} on {emulator.facts().name}"


def _expect(done: Completed, code: int, failure: str) -> None:
    if done.returncode != code:
        said = (done.stdout.strip() or done.stderr.strip() or "it said nothing").splitlines()[-1]
        raise DeviceError(
            f"{failure} on the emulated CPU: exit code {done.returncode}, {said}",
            hint="mobilekd devices doctor",
            code="MKD-511",
        )


def _boot(profile: Profile, state: Path) -> str:
    via = _via(profile)
    with Vm(cpus.cpu(profile.device.cpu).qemu, state=state, via=via) as machine:
        facts = machine.facts()
    return f"{facts.name} answers over {via}: {facts.system}"


def _via(profile: Profile) -> Literal["adb", "ssh"]:
    return "adb" if profile.device.transport == "adb" else "ssh"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names)
