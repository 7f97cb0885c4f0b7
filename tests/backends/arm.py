"""MNN of the aarch64 wheel on emulated CPUs, run by the device runner."""

import subprocess
import sys
import zipfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import mobilekd
from tests.device.tools import missing, need

CROSS_ROOT = Path("/usr/aarch64-linux-gnu")
SOURCES = Path(mobilekd.__file__).parent / "device" / "native"


@dataclass(frozen=True)
class ArmMnn:
    """An aarch64 runner and the MNN library that it loads."""

    runner: Path
    library: Path

    def logits(self, model: Path, batch: NDArray[np.float32], *, cpu: str, classes: int) -> NDArray[np.float32]:
        """Return the logits [n, classes] of a model on one thread of a CPU that QEMU knows, as "cortex-a76"."""
        ends = [model.with_suffix(f".{end}") for end in ("in", "out")]
        np.ascontiguousarray(batch, np.float32).tofile(ends[0])
        emulated = ["qemu-aarch64", "-cpu", cpu, "-L", CROSS_ROOT, "-E", f"LD_LIBRARY_PATH={self.library.parent}"]
        run = [self.runner, "--backend", "mnn", "--library", self.library, "--model", model, "--threads", "1"]
        subprocess.run(
            [*emulated, *run, "--in", ends[0], "--out", ends[1]], check=True, capture_output=True, timeout=300
        )
        return np.fromfile(ends[1], np.float32).reshape(len(batch), classes)


def prepare(folder: Path) -> ArmMnn:
    """Compile the runner and fetch the wheel into a folder."""
    need("qemu-aarch64")
    runner = folder / "mkdrun"
    sources = sorted(str(one) for one in SOURCES.glob("*.c") if one.name != "mkcount.c")
    if not sources:
        missing("the device runner is not part of this checkout")
    subprocess.run([need("aarch64-linux-gnu-gcc"), "-O2", "-rdynamic", "-o", runner, *sources, "-ldl"], check=True)
    wanted = f"mnn=={metadata.version('mnn')}"
    version = f"{sys.version_info.major}{sys.version_info.minor}"
    options = ["--no-deps", "--only-binary=:all:", "--python-version", version, "--platform", "manylinux2014_aarch64"]
    fetch = [sys.executable, "-m", "pip", "download", "--quiet", *options, "--dest", folder, wanted]
    done = subprocess.run(fetch, check=False, capture_output=True, text=True, timeout=600)
    if done.returncode:
        missing(f"no aarch64 wheel of MNN: {done.stderr[-300:]}")
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        found = [name for name in wheel.namelist() if "_mnncengine" in name or "libgomp" in name]
        for name in found:
            (folder / Path(name).name).write_bytes(wheel.read(name))
    return ArmMnn(runner, next(folder.glob("_mnncengine*")))
