"""Images a second of distilling ResNet-56 into ResNet-20 on CIFAR-10, on the CPU: three ways side by side in one run.

    python -m benchmarks.kd_speed [--data cifar10.npz] [--teacher resnet56-4bfd9763.th] [--blocks 3] [--out DIR]
    python -m benchmarks.kd_speed --epochs 10 --train-images 20000   # the same images for each, and top-1 on the test

Batch 128, random crop (4 pixels of padding) and flip, SGD with Nesterov momentum, the same loss, initial weights and
number of threads. The contenders are in `kd_contenders`: a plain PyTorch loop, the same with bf16, torchdistill at a
pinned version in an environment of its own, and this project. Their blocks take turns (A B C A B C). A step is timed
from the end of the one before, so loading and augmentation count. The first steps of an epoch and its last one are left
out: caches warm up there, and a loader's processes start.

This project asks the teacher once an image and view, so it has two rows: the first pass over a view, and later passes;
each with torch.compile too, whose own seconds fall into the first steps. "teacher" is the share of a step that getting
the teacher's answer takes.
"Whole run" is computed from the two for 50,000 images and --projected-epochs, of which --views are first passes.
Writes kd_speed.json and .md.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from benchmarks.kd_contenders import BATCH, CONTENDERS, Task
from mobilekd.toolchain import find_uv

TORCHDISTILL = "1.1.5"
ROOT = Path(__file__).parents[1]
_SHARED = Path(os.environ.get("MOBILEKD_TEST_DATA", ROOT.parent / "shared" / "data"))
_TRIED_STEPS = 20  # for each number of loader processes
_OURS = ("ours", "ours compiled")
_PASSES = ("first pass of a view", "later passes")


def main(arguments: Sequence[str]) -> int:
    """Measure, print and write."""
    options = _parse(arguments)
    workers = {name: Contender(name, options) for name in options.contenders}
    try:
        loading = {name: _loading(worker, options) for name, worker in workers.items() if name not in _OURS}
        one = options.loader_workers[0]
        best = {name: min(tried, key=tried.__getitem__, default=one) for name, tried in loading.items()}
        found: dict[str, Any] = {"setting": _setting(options), "loader_ms_a_step": loading, "loader_workers": best}
        if options.epochs:
            found["training"] = [_train(worker, best.get(name, 0), options) for name, worker in workers.items()]
        else:
            found["blocks"] = _blocks(workers, best, options)
            found["rows"] = _rows(found["blocks"], options)
    finally:
        for worker in workers.values():
            worker.close()
    _write(found, options.out)
    return 0


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.kd_speed")
    parser.add_argument("--data", type=Path, default=_SHARED / "cifar10.npz")
    parser.add_argument("--teacher", type=Path, default=_SHARED / "cifar10_resnet" / "resnet56-4bfd9763.th")
    parser.add_argument("--contenders", nargs="*", choices=list(CONTENDERS), default=list(CONTENDERS))
    parser.add_argument("--torchdistill", type=Path, help="folder of its environment; made when it is not there")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--loader-workers", type=int, nargs="+", default=[0, 1, 2], help="the best of these is taken")
    parser.add_argument("--blocks", type=int, default=3)
    parser.add_argument("--steps", type=int, default=60, help="timed steps of a block")
    parser.add_argument("--warm-up", type=int, default=10, help="steps before them, in each block")
    parser.add_argument("--projected-epochs", type=int, default=100)
    parser.add_argument("--views", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=0, help="train so long and test, in place of timing blocks")
    parser.add_argument("--train-images", type=int, default=50_000, help="images of an epoch, with --epochs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    return parser.parse_args(arguments)


class Contender:
    """The process of a contender; it works only while `run` waits for it."""

    def __init__(self, name: str, options: argparse.Namespace) -> None:
        python = torchdistill_python(options.torchdistill) if name == "torchdistill" else Path(sys.executable)
        argv = [str(python), "-m", "benchmarks.kd_contenders", name]
        argv += ["--data", str(options.data.resolve()), "--teacher", str(options.teacher.resolve())]
        env = {**os.environ, "OMP_NUM_THREADS": str(options.threads), "PYTHONPATH": str(ROOT)}
        self.name = name
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env, text=True)

    def run(self, task: Task) -> dict[str, Any]:
        """Return what `kd_contenders` answers to a task."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(asdict(task)) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            sys.exit(f"{self.name} ended with status {self._process.wait()}; its message is above")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """Let the process end."""
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()


def torchdistill_python(folder: Path | None) -> Path:
    """Return the Python of torchdistill's environment, made with uv when it is not there.

    It has the torch and torchvision that run here. pip's PIP_FIND_LINKS is handed on, as uv does not read it.
    """
    home = folder or Path(tempfile.gettempdir()) / f"mobilekd-torchdistill-{TORCHDISTILL}-torch-{torch.__version__}"
    python = home / "bin" / "python"
    if not python.is_file():
        uv, vision = str(find_uv()), _version("torchvision")
        links = [one for folder in os.environ.get("PIP_FIND_LINKS", "").split() for one in ("--find-links", folder)]
        pins = [f"torch=={torch.__version__}", f"torchvision=={vision}", f"torchdistill=={TORCHDISTILL}"]
        subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, str(home)], check=True)
        subprocess.run([uv, "pip", "install", "--quiet", "--python", str(python), *links, *pins], check=True)
    return python


def _version(package: str) -> str:
    from importlib.metadata import version

    return version(package)


def _loading(worker: Contender, options: argparse.Namespace) -> dict[int, float]:
    """Return the median milliseconds of a step for each number of loader processes; nothing for a single number."""
    few = argparse.Namespace(**{**vars(options), "steps": min(options.steps, _TRIED_STEPS)})
    numbers = options.loader_workers if len(options.loader_workers) > 1 else ()
    return {number: 1e3 * statistics.median(_timed(worker, number, few)[0][0]) for number in numbers}


def _timed(worker: Contender, loaders: int, options: argparse.Namespace) -> list[tuple[list[float], list[float]]]:
    """Return the seconds of the timed steps of each epoch, and what of them the teacher's answer took, if it is known.

    There is one epoch, or two where the second one differs.
    """
    steps = options.warm_up + options.steps + 1
    epochs = 2 if worker.name in _OURS else 1
    task = Task(steps * BATCH, epochs, options.threads, options.seed, views=1, workers=loaders)
    answer = worker.run(task)
    timed = [slice(epoch * steps + options.warm_up, (epoch + 1) * steps - 1) for epoch in range(epochs)]
    return [(answer["steps"][one], answer["teacher"][one]) for one in timed]


def _blocks(workers: Mapping[str, Contender], best: Mapping[str, int], options: argparse.Namespace) -> list[Any]:
    blocks = []
    for block in range(options.blocks):
        for name, worker in workers.items():
            load = os.getloadavg()[0]
            rows = [f"{name}, {one}" for one in _PASSES] if name in _OURS else [name]
            for row, (seconds, teacher) in zip(rows, _timed(worker, best.get(name, 0), options), strict=True):
                speed, median = BATCH * len(seconds) / sum(seconds), statistics.median(seconds)
                record: dict[str, Any] = {
                    "row": row,
                    "block": block,
                    "images_per_s": speed,
                    "median_step_ms": 1e3 * median,
                }
                share = {"teacher_share": sum(teacher) / sum(seconds)} if teacher else {}
                blocks.append({**record, **share, "best_step_ms": 1e3 * min(seconds), "load_before": load})
                print(f"block {block}  {row:28s} {speed:7.1f} images/s   load {load:.1f}", file=sys.stderr, flush=True)
    return blocks


def _rows(blocks: Sequence[Mapping[str, Any]], options: argparse.Namespace) -> list[dict[str, Any]]:
    names = list(dict.fromkeys(one["row"] for one in blocks))
    speeds = {name: [one["images_per_s"] for one in blocks if one["row"] == name] for name in names}
    for name in _OURS:
        passes = [f"{name}, {one}" for one in _PASSES]
        if passes[0] in speeds:
            first = _share_asked(options.views, options.projected_epochs)
            both = zip(*(speeds[one] for one in passes), strict=True)
            whole = f"{name}, whole run of {options.projected_epochs} epochs (computed)"
            speeds[whole] = [1 / (first / asked + (1 - first) / kept) for asked, kept in both]
    rows = []
    for name, found in speeds.items():
        row: dict[str, Any] = {"row": name, "median": statistics.median(found), "min": min(found), "max": max(found)}
        shares = [one["teacher_share"] for one in blocks if one["row"] == name and "teacher_share" in one]
        row |= {"teacher_share": statistics.median(shares)} if shares else {}
        for other in ("plain", "plain-bf16", "torchdistill"):
            if other in speeds:
                row[f"times_{other}"] = statistics.median(a / b for a, b in zip(found, speeds[other], strict=True))
        rows.append(row)
    return rows


def _share_asked(views: int, epochs: int, images: int = 50_000) -> float:
    """Return the share of a run's steps in which the teacher runs.

    It runs in every first pass. An epoch leaves out the last, smaller batch, so that in the second pass of a view some
    images have no answer yet, and one such image makes the teacher answer its whole batch. Later ones are not counted.
    """
    unseen = (images % BATCH) / images
    second = 1 - (1 - unseen) ** BATCH
    return (min(views, epochs) + second * max(0, min(views, epochs - views))) / epochs


def _train(worker: Contender, loaders: int, options: argparse.Namespace) -> dict[str, Any]:
    settings = (options.threads, options.seed, options.views, loaders)
    load = os.getloadavg()[0]
    answer = worker.run(Task(options.train_images, options.epochs, *settings, test=True))
    images = BATCH * len(answer["steps"])
    row = {"row": worker.name, "seed": options.seed, "images": images, "seconds": answer["seconds"]}
    print(f"{worker.name}: top-1 {answer['top1']:.2%} after {answer['seconds']:.0f} s", file=sys.stderr, flush=True)
    return {**row, "images_per_s": images / answer["seconds"], "top1": answer["top1"], "load_before": load}


def _setting(options: argparse.Namespace) -> dict[str, Any]:
    names = ("threads", "steps", "warm_up", "blocks", "views", "epochs", "train_images", "seed")
    versions = {"torch": torch.__version__, "torchvision": _version("torchvision"), "torchdistill": TORCHDISTILL}
    about = Path("/proc/cpuinfo")
    lines = about.read_text(encoding="utf-8").splitlines() if about.is_file() else []
    processor = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown")
    machine = {"processor": processor, "cores": os.cpu_count(), "python": platform.python_version()}
    return {"batch": BATCH, **{name: getattr(options, name) for name in names}, **versions, **machine}


def _write(found: Mapping[str, Any], out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    stem = "kd_accuracy" if "training" in found else "kd_speed"
    (out / f"{stem}.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    lines = []
    if "training" in found:
        lines += ["| way | images | seconds | images/s | top-1 |", "|---|---|---|---|---|"]
        for one in found["training"]:
            cells = f"{one['images']} | {one['seconds']:.0f} | {one['images_per_s']:.0f} | {100 * one['top1']:.2f} %"
            lines.append(f"| {one['row']} | {cells} |")
    else:
        others = [key for key in found["rows"][0] if key.startswith("times_")]
        heads = [key.replace("times_", "× ") for key in others]
        lines += ["| " + " | ".join(["way", "images/s", "smallest to largest", "teacher", *heads]) + " |"]
        lines += ["|" + "---|" * (4 + len(heads))]
        for one in found["rows"]:
            ratios = "".join(f" {one[key]:.2f} |" for key in others)
            teacher = f"{one['teacher_share']:.1%}" if "teacher_share" in one else ""
            span = f"{one['min']:.0f} to {one['max']:.0f}"
            lines.append(f"| {one['row']} | {one['median']:.0f} | {span} | {teacher} |{ratios}")
    text = "\n".join(lines) + "\n"
    (out / f"{stem}.md").write_text(text, encoding="utf-8")
    print(text, end="")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
