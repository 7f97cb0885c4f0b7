"""Run a deployed model in a process of its own: a runtime that crashes takes nothing with it, and memory is its own.

`python -m mobilekd.worker REQUEST.json` is the other side.
"""

import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from mobilekd.backend import Backend, DeployedFacts, Session
from mobilekd.errors import StageError
from mobilekd.plugins import BACKENDS
from mobilekd.process import run_logged

Float32 = NDArray[np.float32]
_FACTS = TypeAdapter(DeployedFacts)


@dataclass(frozen=True, slots=True)
class Timing:
    """What one process measured.

    Attributes:
        samples_ms: Wall time of each timed run, in milliseconds.
        load_ms: From the file to a model that is ready to run, in milliseconds.
        peak_memory_bytes: Growth of resident memory from before the load to its peak; None where the system can't say.
    """

    samples_ms: tuple[float, ...]
    load_ms: float
    peak_memory_bytes: int | None


def read_facts(path: Path) -> DeployedFacts:
    """Read deployment.json of a DeployedModel."""
    return _FACTS.validate_json(path.read_bytes())


def run_model(
    backend: str, model: Path, facts: DeployedFacts, images: Float32, *, kernels: str, threads: int, scratch: Path
) -> Float32:
    """Return the logits [n, classes] of a deployed model, run in a process of its own.

    Args:
        backend: Name of the backend.
        model: The model file.
        facts: What its conversion left.
        images: [n, channels, height, width], normalised.
        kernels: One of the backend's kernel sets.
        threads: CPU threads.
        scratch: A directory for the exchange, which must exist.

    Raises:
        StageError: The runtime refused or crashed.
    """
    np.save(scratch / "images.npy", images)
    request = {"verb": "infer", "kernels": kernels, "threads": threads}
    _call(backend, model, facts, request, scratch)
    logits: Float32 = np.load(scratch / "logits.npy")
    return logits


def time_model(
    backend: str,
    model: Path,
    facts: DeployedFacts,
    image: Float32,
    *,
    threads: int,
    runs: tuple[int, int],
    scratch: Path,
) -> Timing:
    """Return the wall times of a deployed model, run in a process of its own.

    Args:
        backend: Name of the backend.
        model: The model file.
        facts: What its conversion left.
        image: [1, channels, height, width], normalised.
        threads: CPU threads.
        runs: Warm-up runs and timed runs.
        scratch: A directory for the exchange, which must exist.
    """
    np.save(scratch / "images.npy", image)
    warmup_runs, timed_runs = runs
    request = {"verb": "time", "threads": threads, "warmup_runs": warmup_runs, "timed_runs": timed_runs}
    _call(backend, model, facts, request, scratch)
    answer = json.loads((scratch / "timing.json").read_text(encoding="utf-8"))
    return Timing(tuple(answer["samples_ms"]), answer["load_ms"], answer["peak_memory_bytes"])


def trace_model(
    backend: str,
    model: Path,
    facts: DeployedFacts,
    image: Float32,
    names: Sequence[str],
    *,
    kernels: str,
    scratch: Path,
) -> dict[str, Float32]:
    """Return the values of named tensors for one image, from a process of its own; see `Backend.trace`."""
    np.save(scratch / "images.npy", image)
    _call(backend, model, facts, {"verb": "trace", "kernels": kernels, "names": list(names)}, scratch)
    found = json.loads((scratch / "traced.json").read_text(encoding="utf-8"))
    with np.load(scratch / "traced.npz") as arrays:
        return {name: arrays[f"arr_{index}"] for index, name in enumerate(found)}


def _call(backend: str, model: Path, facts: DeployedFacts, request: Mapping[str, object], scratch: Path) -> None:
    if not facts.runnable:
        raise StageError(f"{model.name} can't run here: {facts.note}", code="MKD-422")
    document = {**request, "backend": backend, "model": str(model), "facts": facts.to_json(), "scratch": str(scratch)}
    file = scratch / "request.json"
    file.write_text(json.dumps(document), encoding="utf-8")
    run_logged([sys.executable, "-m", "mobilekd.worker", str(file)], scratch / "worker.log")


def _serve(request: Mapping[str, Any]) -> None:
    scratch = Path(request["scratch"])
    backend: Backend = BACKENDS.load(request["backend"])()
    facts = _FACTS.validate_python(request["facts"])
    images: Float32 = np.load(scratch / "images.npy", mmap_mode="r")
    kernels = request.get("kernels", backend.kernels[0])
    if request["verb"] == "infer":
        session = backend.open(Path(request["model"]), facts, kernels=kernels, threads=request["threads"])
        np.save(scratch / "logits.npy", _infer(session, images))
        return
    if request["verb"] == "trace":
        names = request["names"]
        traced = backend.trace(Path(request["model"]), facts, np.ascontiguousarray(images[:1]), names, kernels=kernels)
        (scratch / "traced.json").write_text(json.dumps(list(traced)), encoding="utf-8")
        np.savez(scratch / "traced.npz", *traced.values())
        return
    # The first model of a process pays for loading the runtime itself; load it once before anything is measured.
    backend.open(Path(request["model"]), facts, kernels=kernels, threads=request["threads"])
    before = _resident_bytes("VmRSS", reset=True)
    started = time.perf_counter()
    session = backend.open(Path(request["model"]), facts, kernels=kernels, threads=request["threads"])
    load_ms = (time.perf_counter() - started) * 1e3
    samples = _time(session, np.ascontiguousarray(images[:1]), request["warmup_runs"], request["timed_runs"])
    peak = _resident_bytes("VmHWM")
    growth = max(0, peak - before) if before is not None and peak is not None else None
    answer = {"samples_ms": samples, "load_ms": load_ms, "peak_memory_bytes": growth}
    (scratch / "timing.json").write_text(json.dumps(answer), encoding="utf-8")


def _infer(session: Session, images: Float32) -> Float32:
    logits = []
    for image in images:
        session.load_input(np.ascontiguousarray(image[None]))
        session.invoke()
        logits.append(session.read_output().astype(np.float32).reshape(-1))
    return np.stack(logits)


def _time(session: Session, image: Float32, warmup_runs: int, timed_runs: int) -> list[float]:
    session.load_input(image)
    for _ in range(warmup_runs):
        session.invoke()
    samples_ms = []
    for _ in range(timed_runs):
        started = time.perf_counter_ns()
        session.invoke()
        samples_ms.append((time.perf_counter_ns() - started) / 1e6)
    return samples_ms


def _resident_bytes(field: str, *, reset: bool = False) -> int | None:
    """Return a memory figure of /proc/self/status in bytes; `reset` first sets the peak back to the present."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return None
    if reset:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    for line in status.read_text(encoding="ascii").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    return None


if __name__ == "__main__":
    _serve(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
