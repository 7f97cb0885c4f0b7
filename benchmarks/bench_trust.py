"""Can `mobilekd bench` be trusted on this host? Equal models, one that is 5 % slower, and the runtimes' own tools.

    python -m benchmarks.bench_trust [--trials 50] [--tool-rounds 12] [--threads 1] [--seed 0] [--out docs/results]

Trials: A against A, and A against A with a busy-wait of 5 % of A's own median in the timed region, in turn; ResNet-8
(MLPerf Tiny) in float, in ONNX Runtime and LiteRT, measured by `mobilekd.interleaving` and judged by
`mobilekd.comparison`. Each block opens a session of its own: where a session lies in memory is worth a per cent or two,
and two sessions that live through a whole measurement would be two models.

Tools: p50 of `mobilekd bench --on host` against `litert-benchmark`, of the ai-edge-litert wheel, and against a loop in
C (ort_loop.c) over the onnxruntime wheel's library; MobileNetV2 at 96 pixels in float, the same threads, a process a
block, in an order drawn for each round. litert-benchmark tells its median in hundredths of a millisecond.
The whole takes about 8 minutes on an idle machine. Writes bench_trust.json and .md.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mobilekd.backend import Backend, DeployedFacts, Session
from mobilekd.benchmarking.running import Running, prepare
from mobilekd.cache import Cache
from mobilekd.comparison import compare
from mobilekd.device_state import STATE_SCRIPT, DeviceState, parse_state, worries
from mobilekd.errors import MissingToolError
from mobilekd.interleaving import LoopSettings, measure_interleaved
from mobilekd.latency import percentile_ms
from mobilekd.measurement import Measured, host_name
from mobilekd.plugins import BACKENDS
from mobilekd.steadiness import assess, evidence_of
from mobilekd.transports.local import Local
from mobilekd.warmup import WarmupRule, warm_up
from mobilekd.workplace import open_workshop

HERE = Path(__file__).parent
_SLOWER = 0.05
_COLD_RUNS = 3
_TOOL_WARMUP = 30
_TRIAL_NETWORK = ("python:benchmarks.mlperf_tiny:resnet8", 32)
_TOOL_NETWORK = ("timm:mobilenetv2_100", 96)


@dataclass(frozen=True, slots=True)
class Model:
    """A float model in one runtime.

    Attributes:
        backend: Name of the runtime.
        file: The model.
        facts: What it says of itself.
        size: Side of its image in pixels.
        threads: CPU threads.
    """

    backend: str
    file: Path
    facts: DeployedFacts
    size: int
    threads: int

    def image(self) -> "np.ndarray[Any, np.dtype[np.float32]]":
        """Return an image [1, 3, size, size] of noise."""
        return np.random.default_rng(0).normal(size=(1, 3, self.size, self.size)).astype(np.float32)

    def open(self) -> Session:
        """Return a session that has run: its first runs allocate."""
        backend: Backend = BACKENDS.load(self.backend)()
        session = backend.open(self.file, self.facts, kernels=backend.kernels[0], threads=self.threads)
        session.load_input(self.image())
        for _ in range(_COLD_RUNS):
            session.invoke()
        return session


def main(arguments: Sequence[str]) -> int:
    """Measure, print and write."""
    options = _parse(arguments)
    before, began_s = _read_host(), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mobilekd-") as folder:
        root = Path(folder)
        models = _models(_TRIAL_NETWORK, root / "trials", options)
        trials = [one for model in models for one in _trials(model, options)]
        tools = _tools(_models(_TOOL_NETWORK, root / "tools", options), root, options) if options.tool_rounds else []
    found = {
        "command": f"python -m benchmarks.bench_trust {' '.join(arguments)}".strip(),
        "host": host_name(),
        "worries": worries(before, _read_host()),
        "seconds": round(time.monotonic() - began_s, 1),
        "options": {name: value for name, value in vars(options).items() if name != "out"},
        "summary": _summary(trials),
        "tools": tools,
        "trials": trials,
    }
    _write(found, options.out)
    return 0


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.bench_trust")
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=LoopSettings().rounds)
    parser.add_argument("--block-ms", type=float, default=20.0)
    parser.add_argument("--backends", nargs="*", default=["onnxruntime", "tflite"])
    parser.add_argument("--tool-rounds", type=int, default=12, help="0 leaves the tools out; at least 8")
    parser.add_argument("--tool-runs", type=int, default=200)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    return parser.parse_args(arguments)


def _models(network: tuple[str, int], folder: Path, options: argparse.Namespace) -> list[Model]:
    """Export a network with random weights and return it in each runtime."""
    import onnxsim
    import torch

    from mobilekd import graph
    from mobilekd.backends import _tflite_write
    from mobilekd.quantization.lowering import lower
    from mobilekd.stages.export import write_onnx
    from mobilekd.training import networks

    name, size = network
    folder.mkdir()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    images = torch.randn(2, 3, size, size)
    write_onnx(lower(networks.build(name, 10).eval(), images), images[:1], folder / "raw.onnx", opset=18)
    simplified, _ = onnxsim.simplify(graph.load(folder / "raw.onnx"))
    files = {"onnxruntime": folder / "model.onnx", "tflite": folder / "model.tflite"}
    graph.save(graph.pool_globally(graph.canonicalize(simplified)), files["onnxruntime"])
    _tflite_write.write(files["onnxruntime"], files["tflite"], io="float32", half_weights=False)
    return [
        Model(backend, files[backend], BACKENDS.load(backend)().describe(files[backend]), size, options.threads)
        for backend in options.backends
    ]


def _trials(model: Model, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the trials of one runtime; those of equal models and of the slower one take turns."""
    p50_ms = warm_up(lambda runs: _time(model.open(), runs, 0)).medians_ms[-1]
    settings = LoopSettings(rounds=options.rounds, block_ms=options.block_ms, warmup=WarmupRule(max_s=3.0))
    found = []
    for number in range(options.trials):
        for ratio in (1.0, 1.0 + _SLOWER):
            seed = options.seed + 2 * number + (ratio > 1)
            wait_ns = {"A": 0, "B": round((ratio - 1) * p50_ms * 1e6)}
            found.append(_trial(model, wait_ns, replace(settings, seed=seed), ratio))
        told = ", ".join(f"{one['ratio_true']:g}: {one['verdict']} {one['ratio']:.3f}" for one in found[-2:])
        print(f"{model.backend} trial {number + 1}: {told}", file=sys.stderr, flush=True)
    return found


def _trial(model: Model, wait_ns: Mapping[str, int], settings: LoopSettings, ratio: float) -> dict[str, Any]:
    seen = measure_interleaved(
        list(wait_ns), lambda name, runs: _time(model.open(), runs, wait_ns[name]), settings, read_state=_read_host
    )
    first, second = (seen.blocks_ms(name) for name in seen.models)
    trust = assess(first, warmup=seen.warmup_of("A"), evidence=evidence_of(seen.states))
    return {
        "backend": model.backend,
        "ratio_true": ratio,
        "seed": settings.seed,
        **compare(first, second).to_json(),
        "trust": trust.verdict,
        "trust_reason": trust.reason,
    }


def _time(session: Session, runs: int, wait_ns: int) -> list[float]:
    """Return the wall times of runs in milliseconds, each with a busy-wait at its end."""
    samples = []
    for _ in range(runs):
        started = time.perf_counter_ns()
        session.invoke()
        until = time.perf_counter_ns() + wait_ns
        while time.perf_counter_ns() < until:
            pass
        samples.append((time.perf_counter_ns() - started) / 1e6)
    return samples


def _tools(models: Sequence[Model], root: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return our p50 over the tool's of each runtime, from rounds in a drawn order."""
    state = Cache.default_root() / "devices"
    with open_workshop(None) as workshop, Local(state) as transport:
        running = prepare(
            transport,
            [model.backend for model in models],
            state=state,
            scratch=root,
            threads=options.threads,
            cores=(),
            progress=workshop.watcher,
        )
        blocks = _tool_blocks(models, running, root, options)
    names = {"onnxruntime": "loop in C", "tflite": "litert-benchmark"}
    rows = []
    for model in models:
        ours, tool = (blocks[f"{model.backend} {side}"] for side in ("ours", "tool"))
        labels = (names[model.backend], "mobilekd")
        rows.append({"backend": model.backend, **compare(tool, ours, names=labels, blocks_per_round=1).to_json()})
    return rows


def _tool_blocks(
    models: Sequence[Model], running: Running, root: Path, options: argparse.Namespace
) -> dict[str, list[list[float]]]:
    contenders: dict[str, Callable[[], list[float]]] = {}
    for model in models:
        contenders[f"{model.backend} ours"] = lambda model=model: _ours(model, running, options)
        contenders[f"{model.backend} tool"] = _tool(model, root, options)
    rng, blocks = random.Random(options.seed), {name: list[list[float]]() for name in contenders}
    for number in range(options.tool_rounds):
        for name in rng.sample(sorted(contenders), len(contenders)):
            blocks[name].append(contenders[name]())
        print(f"tools: round {number + 1} of {options.tool_rounds}", file=sys.stderr, flush=True)
    return blocks


def _ours(model: Model, running: Running, options: argparse.Namespace) -> list[float]:
    """Return what `mobilekd bench --on host` times: one process of its runner."""
    measured = Measured(model.backend, model.file, model.facts)
    job = running.job(measured, model.image())
    return list(running.run(replace(job, warmup_runs=_TOOL_WARMUP, timed_runs=options.tool_runs)).latencies_ms)


def _tool(model: Model, root: Path, options: argparse.Namespace) -> Callable[[], list[float]]:
    if model.backend == "onnxruntime":
        argv = [str(_compiled(root)), str(_ort_library()), str(model.file)]
        for tensor in (model.facts.input, model.facts.output):
            argv += [tensor.name, ",".join(map(str, tensor.shape))]
        argv += [str(model.threads), str(_TOOL_WARMUP), str(options.tool_runs)]
        return lambda: [int(line) / 1e6 for line in _output(argv).split()]
    result = root / "litert.json"
    argv = [sys.executable, "-m", "ai_edge_litert.tools.benchmark_litert_model", f"--model={model.file}"]
    argv += [f"--num_threads={model.threads}", f"--warmup_runs={_TOOL_WARMUP}", f"--num_runs={options.tool_runs}"]

    def median() -> list[float]:
        _output([*argv, f"--result_json={result}"])
        return [json.loads(result.read_text(encoding="utf-8"))["latency"]["median_ms"]]

    return median


def _compiled(root: Path) -> Path:
    program = root / "ort_loop"
    subprocess.run(["cc", "-O2", "-o", program, HERE / "ort_loop.c", "-ldl"], check=True)
    return program


def _ort_library() -> Path:
    import onnxruntime

    for file in sorted(Path(onnxruntime.__file__).parent.glob("capi/libonnxruntime.so.*")):
        return file
    raise MissingToolError("the onnxruntime wheel has no libonnxruntime.so", hint="pip install onnxruntime>=1.24")


def _output(argv: Sequence[str]) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True, timeout=600).stdout


def _read_host() -> DeviceState:
    return parse_state(_output(["sh", "-c", STATE_SCRIPT]))


def _summary(trials: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    rows = []
    for backend in dict.fromkeys(one["backend"] for one in trials):
        for ratio, verdict in ((1.0, "no difference"), (1.0 + _SLOWER, "slower")):
            mine = [one for one in trials if one["backend"] == backend and one["ratio_true"] == ratio]
            widths = [one["interval"][1] - one["interval"][0] for one in mine]
            rows.append(
                {
                    "backend": backend,
                    "true_ratio": ratio,
                    "expected": verdict,
                    "trials": len(mine),
                    "as_expected": sum(one["verdict"] == verdict for one in mine),
                    "median_ratio": percentile_ms([one["ratio"] for one in mine], 50),
                    "median_interval_width": percentile_ms(widths, 50),
                    "trusted": sum(one["trust"] == "trusted" for one in mine),
                }
            )
    return rows


def _write(found: Mapping[str, Any], out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    (out / "bench_trust.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    lines = ["# Can the numbers be trusted?", "", f"`{found['command']}` on {found['host']}, {found['seconds']} s", ""]
    lines += [f"- {sentence}" for sentence in found["worries"]] + [""]
    heads = ("runtime", "true ratio", "must say", "said so", "median ratio", "median width", "trusted")
    lines += ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for row in found["summary"]:
        told = (
            f"{row['as_expected']} of {row['trials']} | {row['median_ratio']:.4f} | {row['median_interval_width']:.2%}"
        )
        lines.append(f"| {row['backend']} | {row['true_ratio']:g} | {row['expected']} | {told} | {row['trusted']} |")
    lines += ["", "| runtime | tool | its p50 | our p50 | ours / its | interval |", "|---|---|---|---|---|---|"]
    for row in found["tools"]:
        low, high = row["interval"]
        p50s = f"{row['first_p50_ms']:.3f} ms | {row['second_p50_ms']:.3f} ms | {row['ratio']:.4f}"
        lines.append(f"| {row['backend']} | {row['first']} | {p50s} | {low:.4f} to {high:.4f} |")
    text = "\n".join(lines) + "\n"
    (out / "bench_trust.md").write_text(text, encoding="utf-8")
    print(text, end="")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
