"""MNN of the aarch64 wheel on emulated CPUs, run by the device runner."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from mobilekd.device import building, cpus, runtimes
from mobilekd.errors import MissingToolError
from tests.device.models import Silent
from tests.device.tools import need


@dataclass(frozen=True)
class ArmMnn:
    """An aarch64 runner, the MNN library that it loads, and the folder with what emulated CPUs say of themselves."""

    runner: Path
    runtime: runtimes.Runtime
    state: Path

    def logits(self, model: Path, batch: NDArray[np.float32], *, cpu: str, classes: int) -> NDArray[np.float32]:
        """Return the logits [n, classes] of a model on one thread of a CPU of `cpus.CPUS`."""
        ends = [model.with_suffix(f".{end}") for end in ("in", "out")]
        np.ascontiguousarray(batch, np.float32).tofile(ends[0])
        known = cpus.cpu(cpu)
        beside = ":".join(str(one.parent) for one in self.runtime.needs)
        argv = [
            "qemu-aarch64",
            "-cpu",
            known.qemu,
            "-L",
            cpus.prefix(known, self.state),
            "-E",
            f"LD_LIBRARY_PATH={beside}",
        ]
        argv += [self.runner, "--backend", "mnn", "--library", self.runtime.library, "--model", model]
        subprocess.run([*argv, "--in", ends[0], "--out", ends[1]], check=True, capture_output=True, timeout=300)
        return np.fromfile(ends[1], np.float32).reshape(len(batch), classes)


def prepare(state: Path) -> ArmMnn:
    """Build the runner and fetch MNN's library into a folder; skip the test where either can't be had."""
    need("qemu-aarch64")
    try:
        return ArmMnn(
            building.runner("aarch64", state, Silent()), runtimes.runtime("mnn", "aarch64", state, Silent()), state
        )
    except MissingToolError as cause:
        pytest.skip(f"{cause.message} ({cause.hint})")
