"""Distillation on CIFAR: each method against the student trained alone, with seeds; int8 on request.

    python -m benchmarks.distillation --data cifar10.npz --checkpoints DIR [--students resnet8] [--methods alone kd]
        [--seeds 0 1 2] [--epochs 30] [--int8] [--source cifar100] [--out docs/results]

DIR holds the published checkpoints (akamaster/pytorch_resnet_cifar10); the teacher is ResNet-56. For CIFAR-100 give
--source cifar100, --teacher-checkpoint and a larger --epochs. Rows are added to distillation.json, in the place of
older ones of the same student, method, seed and epochs; distillation.md is written from it. A run that was stopped
goes on from what the cache has.
"""

import argparse
import json
import shlex
import statistics
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.cifar_int8 import FILES
from benchmarks.conformance import HERE
from mobilekd import config
from mobilekd import pipeline as pipelines
from mobilekd.artifacts import ParityReport, Student
from mobilekd.pipeline import BuildResult
from mobilekd.training.history import pulls_of
from mobilekd.workplace import open_workshop

Json = dict[str, Any]

STUDENTS = {
    "resnet8": "python:benchmarks.mlperf_tiny:resnet8",
    "resnet20": "python:benchmarks.cifar_resnet:resnet20",
    "mobilenetv2_050": "python:benchmarks.zoo:mobilenetv2_050_cifar",
}
# Weights are the methods' own defaults (docs/methods.md). The authors' weights of dkd and dist for CIFAR-100 (beta 8;
# temperature 4, weights 2) are too large for 10 classes: docs/results/distillation.md.
# All but kd come with plain cross-entropy, as in the papers' tables.
METHODS: dict[str, tuple[str, ...]] = {
    "alone": ("distill.soft_weight=0.0",),
    "kd": ("distill.method=kd", "distill.temperature=4.0", "distill.soft_weight=0.9"),
    "dkd": ("distill.method=dkd", "distill.method_options={ dkd = { beta = 1.0, ramp = 0.083 } }"),
    "dist": ("distill.method=dist",),
    "fitnets": ("distill.method=fitnets",),
    "attention_transfer": ("distill.method=attention_transfer",),
    "rkd": ("distill.method=rkd",),
    "sp": ("distill.method=sp",),
    "crd": ("distill.method=crd",),
    "reviewkd": ("distill.method=reviewkd", "distill.method_options={ reviewkd = { ramp = 0.083 } }"),
}
# Gains over the student alone on CIFAR-100, 240 epochs, by the tables of mdistiller and RepDistiller, of the pair
# nearest to ours: ResNet32x4 -> ResNet8x4, ResNet-56 -> ResNet-20, VGG13 -> MobileNetV2.
_PAPERS: dict[str, dict[str, float]] = {
    student: dict(zip(("kd", "dkd", "fitnets", "attention_transfer", "rkd", "sp", "crd"), gains, strict=True))
    for student, gains in {
        "resnet8": (0.83, 3.82, 1.00, 0.94, -0.60, 0.44, 3.01),
        "resnet20": (1.60, 2.91, 0.15, 1.49, 0.55, 0.61, 2.10),
        "mobilenetv2_050": (2.77, 5.11, -0.46, -5.20, -0.08, 1.70, 5.13),
    }.items()
}
RECIPE = (
    "distill.optimizer=sgd",
    # Of 0.1, 0.2 and 0.4 the best on 5,000 held-out images (ResNet-8, KD, 15 epochs): 86.2, 86.3, 85.1 %.
    "distill.learning_rate=0.2",
    "distill.weight_decay=5e-4",
    "distill.batch_size=128",
    "distill.shift_pixels=4",
    "distill.flip=true",
    "distill.precision=bf16",
    "distill.views=16",
    "distill.compile=true",
)
QAT = (
    # AdamW: SGD at 1e-3 drives the learned scales away (validation: 91 % calibrated, 49 % trained).
    "quantize.learning_rate=1e-4",
    "quantize.epochs=2",
    "quantize.batch_size=128",
    "quantize.shift_pixels=4",
    "quantize.flip=true",
)


def main(arguments: Sequence[str]) -> int:
    """Train every student, method and seed; write the figures after each."""
    parser = argparse.ArgumentParser(prog="benchmarks.distillation")
    parser.add_argument("--data", required=True)
    parser.add_argument("--checkpoints", type=Path, required=True)
    parser.add_argument("--source", choices=("cifar10", "cifar100"), default="cifar10")
    parser.add_argument("--teacher-checkpoint", type=Path)
    parser.add_argument("--students", nargs="*", choices=STUDENTS, default=list(STUDENTS))
    parser.add_argument("--methods", nargs="*", choices=METHODS, default=list(METHODS))
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--int8", action="store_true", help="also QAT, every backend, on the whole test split")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--set", dest="more", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    options = parser.parse_args(arguments)
    command = shlex.join(["python", "-m", "benchmarks.distillation", *_without_paths(arguments)])
    for seed in options.seeds:
        for student in options.students:
            for method in options.methods:
                rows = [{**row, "command": command} for row in run(student, method, seed, options)]
                write(merged(read(options.out), rows), options.out)
    return 0


def run(student: str, method: str, seed: int, options: argparse.Namespace) -> list[Json]:
    """Return the row of one student: one, or one for each int8 backend."""
    checkpoint = options.teacher_checkpoint or options.checkpoints / FILES[56]
    settings = [
        f"data.source={options.source}",
        f"data.path={options.data}",
        "data.normalization=imagenet",
        "data.calibration_images=1000",
        "teacher.network=python:benchmarks.cifar_resnet:resnet56",
        f"teacher.checkpoint={checkpoint}",
        "teacher.epochs=0",
        f"distill.network={STUDENTS[student]}",
        f"distill.epochs={options.epochs}",
        f"distill.seed={seed}",
        f"quantize.seed={seed}",
        *(f"{stage}.threads={options.threads}" for stage in ("teacher", "distill", "quantize")),
        *RECIPE,
        *QAT,
        *METHODS[method],
        *options.more,
    ]
    overrides = [config.parse_override(one) for one in settings]
    profile = config.load_profile(str(HERE / "conformance.toml"), overrides)
    with open_workshop(options.cache) as workshop:
        chosen = config.load_pipeline(str(HERE / "distillation.toml"), overrides)
        result = pipelines.build(chosen, profile, workshop, until="verify" if options.int8 else "distill")
    row: Json = {
        "data": options.source,
        "teacher": "resnet56",
        "student": student,
        "method": method,
        "seed": seed,
        "epochs": options.epochs,
        "top1_fp32": _of_student(result, "metrics.json")["top1_test"],
        "top1_int8": None,
        "backend": "torch",
        "seconds": round(next(one.entry.seconds for one in result.stages if one.name == "distill"), 1),
        "settings": options.more,
        "pulls": pulls_of(_of_student(result, "history.json")),
    }
    found = [{**row, "backend": name, "top1_int8": top1} for name, top1 in _int8(result)] or [row]
    told = ", ".join(f"{one['backend']} {one['top1_int8'] or one['top1_fp32']:.2%}" for one in found)
    told += "".join(f"; {term} pulls {norm:.3g}" for term, norm in row["pulls"].items())
    print(f"{student} {method} seed {seed}: fp32 {row['top1_fp32']:.2%}; {told}", file=sys.stderr, flush=True)
    return found


def _of_student(result: BuildResult, file: str) -> Any:
    return json.loads((result.the(Student).path / file).read_text(encoding="utf-8"))


def _int8(result: BuildResult) -> list[tuple[str, float]]:
    report = result.newest(ParityReport)
    if report is None:
        return []
    rows = json.loads((report.path / "parity.json").read_text(encoding="utf-8"))["rows"]
    return [
        (row["backend"], row["top1_deployed"])
        for row in rows
        if row["precision"] == "int8" and row["kernels"] in ("default", "xnnpack") and row["top1_deployed"]
    ]


def _without_paths(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with names in the place of paths, which belong to one machine."""
    names = {"--data": "cifar10.npz", "--checkpoints": "DIR", "--cache": "CACHE", "--out": "OUT"}
    return [names.get(before, one) for before, one in zip(["", *arguments[:-1]], arguments, strict=True)]


def read(out: Path) -> list[Json]:
    """Return the rows so far."""
    file = out / "distillation.json"
    rows: list[Json] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else []
    return rows


def merged(old: Iterable[Json], new: Iterable[Json]) -> list[Json]:
    """Return old rows without those that a new one replaces, and the new ones, in order."""
    found = {_key(row): row for row in (*old, *new)}
    order = {name: place for place, name in enumerate((*STUDENTS, *METHODS))}
    return sorted(
        found.values(), key=lambda row: (order[row["student"]], row["epochs"], order[row["method"]], *_key(row))
    )


def _key(row: Json) -> tuple[str, ...]:
    return tuple(map(str, (*_budget(row), *(row[name] for name in ("method", "seed", "backend")))))


def write(rows: list[Json], out: Path) -> None:
    """Write distillation.json, and the tables of distillation.md between its two marks."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "distillation.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    file = out / "distillation.md"
    head, tail = ("# Distillation\n\n", "\n")
    if file.is_file():
        text = file.read_text(encoding="utf-8")
        head, tail = text.split(_BEGIN)[0], text.split(_END)[-1]
    file.write_text(f"{head}{_BEGIN}\n\n{table(rows)}\n{_END}{tail}", encoding="utf-8")


_BEGIN, _END = "<!-- rows: written by benchmarks.distillation -->", "<!-- end of rows -->"


def table(rows: Sequence[Json]) -> str:
    """Return one table: a line for each student, budget, settings and method; mean ± standard deviation over the seeds.

    A gain is over the student alone of the same seed and settings; the papers' are of the nearest pair.
    """
    heads = (
        "data",
        "student",
        "epochs",
        "settings",
        "method",
        "seeds",
        "top-1 fp32",
        "over alone",
        "papers'",
        "int8 TFLite",
    )
    lines = [f"| {' | '.join((*heads, 'seconds'))} |\n", "|---" * (len(heads) + 1) + "|\n"]
    groups: dict[tuple[object, ...], list[Json]] = {}
    for row in rows:
        groups.setdefault((*_budget(row), row["method"]), []).append(row)
    for key, ours in groups.items():
        by_seed = {row["seed"]: row["top1_fp32"] for row in ours}
        alone = {row["seed"]: row["top1_fp32"] for row in groups.get((*key[:-1], "alone"), ())}
        gains = [top1 - alone[seed] for seed, top1 in by_seed.items() if seed in alone]
        gain, paper = ("", "") if key[-1] == "alone" else (_spread(gains, "+"), _paper(ours[0]))
        int8 = _spread([row["top1_int8"] for row in ours if row["backend"] == "tflite"])
        seconds = f"{statistics.median(row['seconds'] for row in ours):.0f}"
        cells = (*key, len(by_seed), _spread(list(by_seed.values())), gain, paper, int8, seconds)
        lines.append("| " + " | ".join(str(cell) for cell in cells) + " |\n")
    return "".join(lines)


def _budget(row: Json) -> tuple[object, ...]:
    """Return what rows that may be compared have in common; features that are kept as halves are no other setting."""
    settings = [one.partition(".")[2] for one in row["settings"] if "keep_features" not in one]
    return row["data"], row["student"], row["epochs"], ", ".join(settings)


def _paper(row: Json) -> str:
    gain = _PAPERS[row["student"]].get(row["method"])
    return "" if gain is None else f"{gain:+.2f}"


def _spread(shares: Sequence[float], sign: str = "") -> str:
    if not shares:
        return ""
    deviation = f" ± {100 * statistics.stdev(shares):.2f}" if len(shares) > 1 else ""
    return f"{100 * statistics.mean(shares):{sign}.2f}{deviation}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
