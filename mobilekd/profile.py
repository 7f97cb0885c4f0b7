"""What we build for: a target, its deployments, and what must hold. Written by people as devices/*.toml."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Precision = Literal["fp32", "fp16", "int8"]

IN_PAGES = ("onnxruntime",)
"""Backends whose models a web page runs."""


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Target(_Table):
    """Where the bundle runs."""

    os: Literal["android", "ios", "linux", "windows", "macos", "web"]
    abi: Literal["arm64-v8a", "armeabi-v7a", "aarch64", "x86_64", "wasm32"]
    chip: str = ""
    compute_capability: str = Field(default="", pattern=r"^(\d+\.\d)?$")
    """CUDA compute capability of the GPU, as "8.7"; empty without one."""


class Deployment(_Table):
    """One model file of the bundle: a runtime and a precision."""

    backend: str
    precision: Precision = "int8"
    io: Literal["float32", "int8"] = "float32"
    """Type of the model's own input and output; int8 needs precision = "int8"."""
    ships: bool = True
    """False for a float baseline that is measured beside int8 and left out of the bundle."""

    @property
    def name(self) -> str:
        """Return a name that is unique in a profile, as "tflite-int8"."""
        return "-".join((self.backend, self.precision, *(("int8io",) if self.io == "int8" else ())))


def _is_absent(value: object) -> bool:
    """Return whether a key is left out: one that older bundles lack must not change their canonical text."""
    return value is None


class DeviceSettings(_Table):
    """What the benchmark runs on: a device, an emulator that stands in for it, or this host."""

    place: Literal["auto", "device", "emulator", "host"] = "auto"
    """"auto": the device if one is attached, else the emulator if it is installed, else this host; the result says
    which, and why."""
    transport: Literal["adb", "ssh", "local", "web", "none"] = "none"
    """How an attached device is reached; "local" where this host may be the target itself, "web": a browser of it."""
    serial: str = ""
    """adb: which device; empty takes $ANDROID_SERIAL, or the only one attached."""
    host: str = ""
    """ssh: the board, as `ssh HOST` takes it; empty means that none is attached."""
    browser: str | None = Field(default=None, exclude_if=_is_absent)
    """web: program or path of the browser; absent takes $MOBILEKD_CHROMIUM, or the first Chromium on PATH."""
    cpu: str = ""
    """Emulator: the CPU model that stands for this profile's devices, as "cortex-a76"; empty means no emulator."""
    emulator: Literal["auto", "qemu", "vm"] = "auto"
    """What emulates it: "qemu" is qemu-user, whose plug-in counts instructions by class; "vm" is a virtual machine with
    a kernel of its own, whose clock counts them (-icount). "auto": qemu-user where it takes plug-ins, else "vm"."""
    runner: Literal["auto", "native", "python"] = "auto"
    """What runs the models: mkdrun, or its twin in Python with the packages that the device has; "auto" is mkdrun, and
    Python where that can't be built for the device's machine. The result says which."""
    images: int = Field(default=200, ge=0)
    """First images of the test split that every model answers on the device or emulator."""


class BenchmarkSettings(_Table):
    """How latency is measured."""

    mode: Literal["quick", "release"] = "quick"
    """"release" follows MLPerf Mobile: at least 1,024 timed runs and 60 s of each model."""
    warmup_runs: int = Field(default=20, ge=1)
    timed_runs: int = Field(default=200, ge=10)
    threads: int = Field(default=1, ge=1)
    cores: tuple[Annotated[int, Field(ge=0)], ...] = ()
    """CPUs that the runs are pinned to; empty leaves it to the system."""
    baseline: Literal["fp32", "none"] = "fp32"
    """fp32 measures a float model beside every int8 one and shows the ratio."""


class Tolerance(_Table):
    """What parity must hold between a deployed model and the model that was trained, on the test split."""

    top1_drop: float = Field(default=0.005, ge=0, le=1)
    """Largest loss of top-1, as a fraction."""
    agreement: float = Field(default=0.99, ge=0, le=1)
    """Smallest share of images with the same answer."""
    other_top1_drop: float = Field(default=0.02, ge=0, le=1)
    other_agreement: float = Field(default=0.9, ge=0, le=1)
    """The same two for kernel sets that are not a backend's default, as TFLite's built-in and reference kernels, which
    round each accumulator twice: about one value in 500 is a step off, and thin margins turn that into answers."""
    float_ops: int = Field(default=0, ge=0)
    """Largest number of convolution, linear and matmul layers of an int8 model that run in float, beside those that
    keep_float or max_top1_drop keeps there."""


_COUNT: Any = Field(default=None, gt=0, exclude_if=_is_absent)
_SHARE: Any = Field(default=None, ge=0, le=1, exclude_if=_is_absent)


class Budget(_Table):
    """What must hold for a release; an absent one is not checked. docs/gates.md has each with an example."""

    p50_ms: float | None = Field(default=None, gt=0)
    """Median latency of every shipped model; checked only where it was measured on the target itself."""
    guest_instructions: int | None = _COUNT
    """Instructions of one inference on the emulator."""
    model_bytes: int | None = Field(default=None, gt=0)
    bundle_bytes: int | None = _COUNT
    """All files of the bundle together."""
    peak_memory_bytes: int | None = _COUNT
    """Growth of resident memory on the device or in the virtual machine."""
    top1_drop: float | None = Field(default=None, ge=0, le=1)
    """Largest loss of top-1 from the teacher to a shipped model, as a fraction."""
    student_top1_drop: float | None = _SHARE
    """The same from the float student."""
    release_top1_drop: float | None = _SHARE
    """The same from this deployment in the last release (--against)."""
    class_top1_drop: float | None = _SHARE
    """Largest loss of top-1 of any one class from the float student, as a fraction."""
    release_class_top1_drop: float | None = _SHARE
    """The same from this deployment in the last release (--against)."""
    agreement: float | None = _SHARE
    """Smallest share of test images with the answer of the network that was trained."""
    error_steps: float | None = Field(default=None, ge=0, exclude_if=_is_absent)
    """Largest mean error of a logit, in quantization steps of the output."""
    int8_beats_fp32: bool | None = Field(default=None, exclude_if=_is_absent)
    """True: an int8 model must be faster than fp32 on the device, or take fewer instructions on the emulator."""
    licences: tuple[Annotated[str, Field(min_length=1)], ...] | None = Field(
        default=None, min_length=1, exclude_if=_is_absent
    )
    """SPDX identifiers that the models, the data set and the networks may stand under."""


class Profile(_Table):
    """One file of devices/."""

    name: str
    title: str
    target: Target
    deploy: tuple[Deployment, ...] = Field(min_length=1)
    device: DeviceSettings = DeviceSettings()
    benchmark: BenchmarkSettings = BenchmarkSettings()
    tolerance: Tolerance = Tolerance()
    budget: Budget = Budget()
    max_top1_drop: float | None = Field(default=None, ge=0, le=1)
    """Top-1 that calibrated int8 may lose against the float student, as a fraction: the layers that int8 hurts most
    stay float until it holds. Absent: every layer is int8, whatever it costs."""

    @model_validator(mode="after")
    def _a_page_has_something_to_run(self) -> Self:
        if self.device.transport == "web" and all(one.backend not in IN_PAGES for one in self.deploy):
            built = ", ".join(dict.fromkeys(one.backend for one in self.deploy))
            raise ValueError(f"transport is 'web', and a page runs {', '.join(IN_PAGES)}; deploy has {built}")
        return self

    def deployments(self) -> tuple[Deployment, ...]:
        """Return what is converted: the deployments, then the float baselines that they are measured against."""
        shipped = {(one.backend, one.precision) for one in self.deploy}
        wanted = dict.fromkeys(one.backend for one in self.deploy if one.precision == "int8")
        if self.benchmark.baseline == "none":
            return self.deploy
        baselines = tuple(
            Deployment(backend=backend, precision="fp32", ships=False)
            for backend in wanted
            if (backend, "fp32") not in shipped
        )
        return self.deploy + baselines
