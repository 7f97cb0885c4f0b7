"""Plausible results of the earlier stages, and a runtime whose models are matrices."""

import json
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mobilekd.backend import DeployedFacts, Float32, TensorFacts
from mobilekd.profile import Budget, Deployment, Profile, Target
from mobilekd.quant_table import QuantTable, TensorQuant, save_table
from mobilekd.release.answers import write_answers
from mobilekd.release.evidence import Evidence, Sources, read_evidence
from mobilekd.release.pack import PackOptions, write_bundle

CLASSES = tuple(f"digit {index}" for index in range(10))
IMAGES, SIZE, TEST_IMAGES = 12, 8, 360
RAN_ON = "host (x86_64), not the target"
EMULATOR = "emulated cortex-a76"
OPTIONS = PackOptions(pipeline="quickstart", licence="Apache-2.0", reference_image=3)


@dataclass(frozen=True)
class Model:
    """What one deployment is worth in the made-up build."""

    backend: str
    precision: str
    suffix: str
    kernels: tuple[str, ...] = ("default",)
    ships: bool = True
    top1: float | None = 0.9833
    size: int = 987_654
    p50_ms: float | None = 0.4
    note: str = ""


MODELS = (
    Model("onnxruntime", "int8", ".onnx", p50_ms=0.61, size=1_121_804),
    Model("tflite", "int8", ".tflite", kernels=("xnnpack", "builtin", "reference"), p50_ms=0.412, top1=0.9861),
    Model("mnn", "int8", ".mnn", p50_ms=0.88, size=1_043_212, top1=0.9806),
    Model("tensorrt", "int8", ".onnx", top1=None, p50_ms=None, note="built, not run: no GPU on this host"),
    Model("onnxruntime", "fp32", ".onnx", ships=False, p50_ms=1.42, size=4_310_220, top1=0.9889),
    Model("tflite", "fp32", ".tflite", ships=False, p50_ms=1.18, size=4_201_344, top1=0.9889),
    Model("mnn", "fp32", ".mnn", ships=False, p50_ms=1.9, size=4_256_020, top1=0.9889),
)


class MatrixRuntime:
    """Runs models that are matrices [classes, features] with a suffix of their backend."""

    def __init__(self, absent: str = "") -> None:
        self.absent = absent

    def missing(self, backend: str) -> str | None:
        return "not installed" if backend == self.absent else None

    def parity_steps(self, backend: str) -> float:
        del backend
        return 1.0

    def logits(self, backend: str, model: Path, facts: DeployedFacts, image: Float32, scratch: Path) -> Float32:
        del backend, facts, scratch
        weights: Float32 = np.frombuffer(model.read_bytes(), np.float32).reshape(-1, image.size)
        return weights @ image.ravel()


@dataclass
class Workshop:
    """A directory with the artifacts of one build."""

    root: Path
    classes: tuple[str, ...] = CLASSES
    models: tuple[Model, ...] = MODELS
    budget: Budget = field(default_factory=lambda: Budget(model_bytes=2_000_000, top1_drop=0.02, p50_ms=5.0))
    source: str = "scikit-learn load_digits"
    latency_seed: int = 0
    on_target: bool = False
    place: str = "host"
    """"device" has times of the target, "emulator" counted instructions."""
    worries: tuple[str, ...] = ()
    note: str = ""
    failed: str = ""
    drifting: str = ""
    """Deployment whose 21st tensor is far off."""
    drift_images: int = 2
    resize: str = f"shorter side to {SIZE} px, bilinear with antialias, then the central {SIZE} x {SIZE} square"
    answers: bool = True
    """False for the results of a version that kept none."""
    wrong_from: int = 0
    """First image that a network or model answers wrong; one with a lower top-1 has more of them behind it."""

    def profile(self) -> Profile:
        deploy = tuple(
            Deployment(backend=one.backend, precision=one.precision)  # type: ignore[arg-type]
            for one in self.models
            if one.ships
        )
        return Profile(
            name="android-arm64",
            title="Android phones (arm64)",
            target=Target(os="android", abi="arm64-v8a"),
            deploy=deploy,
            budget=self.budget,
        )

    def evidence(self) -> Evidence:
        """Write all artifacts and read them back."""
        sources = Sources(
            dataset=self._dataset(),
            teacher=self._trained("teacher", "timm:resnet18", 0.9944, 11_181_642, epochs=12),
            student=self._trained("student", "timm:mobilenetv3_small_100", 0.9889, 1_528_106, epochs=30),
            quantized=self._trained("quantized", "timm:mobilenetv3_small_100", 0.9861, 1_528_106, epochs=6),
            simplified=self._table(),
            parity=self._parity(),
            latency=self._latency(),
            deployed=[self._deployed(one) for one in self.models],
        )
        return read_evidence(self.profile(), sources)

    def bundle(self, runtime: MatrixRuntime | None = None, options: PackOptions = OPTIONS) -> Path:
        """Return the folder that holds bundle/ and bundle.zip."""
        out = self.root / "out"
        out.mkdir(parents=True)
        write_bundle(self.evidence(), options, runtime or MatrixRuntime(), out, self.root)
        return out

    def page(self, evidence: Evidence) -> str:
        """Return the measured report of artifacts that were written before."""
        out = self.root / "page"
        out.mkdir()
        write_bundle(evidence, OPTIONS, MatrixRuntime(), out, self.root)
        return (out / "bundle/measurements/report.html").read_text()

    def _folder(self, name: str) -> Path:
        folder = self.root / name
        folder.mkdir(parents=True)
        return folder

    def _dataset(self) -> Path:
        folder = self._folder("dataset")
        _json(
            folder / "dataset.json",
            {
                "name": "digits",
                "classes": self.classes,
                "image_size": [SIZE, SIZE],
                "channels": 3,
                "mean": [0.485, 0.456, 0.406],
                "std": [0.229, 0.224, 0.225],
                "resize": self.resize,
                "splits": {"train": 1257, "calibration": 180, "test": 360},
                "licence": "CC-BY-4.0",
                "source": self.source,
            },
        )
        rng = np.random.default_rng(0)
        np.save(folder / "test_images.npy", rng.integers(0, 256, (IMAGES, SIZE, SIZE, 3), dtype=np.uint8))
        np.save(folder / "test_labels.npy", np.arange(IMAGES, dtype=np.int64) % len(self.classes))
        return folder

    def _trained(self, name: str, network: str, top1: float, parameters: int, *, epochs: int) -> Path:
        folder, rng = self._folder(name), random.Random(name)
        history = [
            {
                "epoch": float(epoch),
                "loss": 2.3 * 0.8**epoch + 0.05 + rng.random() * 0.04,
                "lr": 1e-3,
                "top1": top1 - 0.6 * 0.7**epoch - rng.random() * 0.004,
            }
            for epoch in range(1, epochs + 1)
        ]
        _json(folder / "network.json", {"network": network, "classes": len(self.classes), "licence": "Apache-2.0"})
        _json(
            folder / "metrics.json", {"top1_test": top1, "top1_validation": None, "parameters": parameters, "epochs": 1}
        )
        _json(folder / "history.json", history)
        np.save(folder / "test_logits.npy", np.eye(2)[(np.arange(1000) >= 1000 * top1).astype(int)])
        return folder

    def _table(self) -> Path:
        folder, rng = self._folder("simplified"), random.Random(1)
        tensors: list[TensorQuant] = []
        for index in range(36):
            scale = (10 ** rng.uniform(-2.2, -0.9),)
            tensors.append(TensorQuant(f"act_{index}", "activation", "int8", scale, (0,), None, -128, 127))
            scales = tuple(10 ** rng.uniform(-3.6, -2.2) for _ in range(16))
            tensors.append(TensorQuant(f"conv_{index}.weight", "weight", "int8", scales, (0,) * 16, 0, -127, 127))
        tensors.append(TensorQuant("logits", "activation", "int8", (0.125,), (0,), None, -128, 127))
        save_table(QuantTable(tuple(tensors)), folder / "quant_table.json")
        return folder

    def _deployed(self, one: Model) -> Path:
        name = f"{one.backend}-{one.precision}"
        folder = self._folder(f"deployed-{name}")
        facts = DeployedFacts(
            deployment=_deployment(one),
            file=f"model{one.suffix}",
            runnable=one.top1 is not None,
            input=TensorFacts("image", (1, SIZE, SIZE, 3), "float32", "NHWC"),
            output=TensorFacts("logits", (1, len(self.classes)), "float32", "NC"),
            float_ops=(),
            other_float_ops=("Softmax attention",),
            int8_tensors=104,
            tools={one.backend: "1.2.3"},
            note=one.note or self.note,
            build_command="trtexec --onnx=model.onnx --int8 --saveEngine=model.plan" if one.note else "",
        )
        _json(folder / "deployment.json", facts.to_json())
        weights = np.random.default_rng(len(name)).standard_normal((len(self.classes), SIZE * SIZE * 3))
        (folder / f"model{one.suffix}").write_bytes(weights.astype(np.float32).tobytes())
        return folder

    def _parity(self) -> Path:
        folder = self._folder("parity")
        self._answers(folder / "answers")
        rows = [_parity_row(one, kernels) for one in self.models for kernels in one.kernels]
        drifted = {"status": "failed", "note": "top-1 is 2.1 points lower"}
        rows = [row | drifted if row["backend"] == self.failed else row for row in rows]
        walked = [(one, kernels) for one in self.models if one.top1 and one.ships for kernels in one.kernels]
        drift = [self._walk(one, kernels) for one, kernels in walked] if self.drift_images else []
        document = {"rows": rows, "tolerance": {"top1_drop": 0.005}, "images": 360}
        _json(folder / "parity.json", {**document, "drift_images": self.drift_images, "drift": drift})
        return folder

    def _answers(self, folder: Path) -> None:
        if not self.answers:
            return
        labels = np.arange(TEST_IMAGES) % len(self.classes)
        write_answers(folder, "labels", labels)
        top1 = {_name(one): one.top1 for one in self.models if one.top1 is not None}
        for name, share in {**top1, "teacher": 0.9944, "student": 0.9889, "quantized": 0.9861}.items():
            misses = np.arange(round((1 - share) * TEST_IMAGES)) + self.wrong_from
            answers = labels.copy()
            answers[misses] = (labels[misses] + 1) % len(self.classes)
            write_answers(folder, name, answers)

    def _walk(self, model: Model, kernels: str) -> dict[str, Any]:
        name, rng = f"{model.backend}-{model.precision}", random.Random(f"{model.backend}{kernels}")
        tensors = [_tensor(index, rng) for index in range(37)]
        if name == self.drifting:
            far = {"mean_error_steps": 0.63, "share_off": 0.31, "cosine": 0.99}
            tensors[20] |= {**far, "own_max_error_steps": 14.0, "own_mean_error_steps": 0.61, "max_error_steps": 14.2}
            tensors[21:] = [one | far | {"max_error_steps": 6 + 5 * rng.random()} for one in tensors[21:]]
        return {"deployment": name, "kernels": kernels, "tensors": tensors, "absent": ["flat"]}

    def _latency(self) -> Path:
        folder, rng = self._folder("latency"), random.Random(self.latency_seed)
        samples = {
            _name(one): [one.p50_ms * (0.97 + rng.gammavariate(1.2, 0.025)) for _ in range(200)]
            for one in self.models
            if one.p50_ms
        }
        is_emulator = self.place == "emulator"
        times = {one: [] if is_emulator else samples.get(_name(one), []) for one in self.models}
        rows = [_latency_row(one, times[one]) | (_counted(one) if is_emulator else {}) for one in self.models]
        on_target = self.on_target or self.place == "device"
        places = {"host": "target" if on_target else RAN_ON, "device": "adb 0123", "emulator": EMULATOR}
        document = {
            "host": "build-box-7",
            "ran_on": places[self.place],
            "on_target": on_target,
            "place": self.place,
            "why": "no phone is attached" if is_emulator else "",
            "worries": self.worries,
            "measured": f"2026-03-0{1 + self.latency_seed}",
            "rows": rows,
            "samples_ms": {_name(one): [each[:100], each[100:]] for one, each in times.items() if each},
        }
        _json(folder / "latency.json", document)
        return folder


def _deployment(one: Model) -> dict[str, object]:
    return {"backend": one.backend, "precision": one.precision, "io": "float32", "ships": one.ships}


def _parity_row(one: Model, kernels: str) -> dict[str, Any]:
    row: dict[str, Any] = {
        "deployment": f"{one.backend}-{one.precision}",
        "backend": one.backend,
        "precision": one.precision,
        "kernels": kernels,
        "ships": one.ships,
        "status": "built, not run" if one.top1 is None else "passed",
        "note": one.note,
        "bytes": one.size,
    }
    if one.top1 is None:
        return row
    return row | {
        "top1_reference": 0.9861,
        "top1_deployed": one.top1,
        "top1_agreement": 0.9972,
        "max_error_steps": 1.37,
        "mean_error_steps": 0.042,
        "float_ops": 0 if one.precision == "int8" else 53,
        "float_op_names": [],
        "other_float_ops": ["Softmax attention"] if one.precision == "int8" else [],
    }


def _tensor(index: int, rng: random.Random) -> dict[str, Any]:
    """Return the drift of one tensor: ties add a step here and there, and spread with depth."""
    own = float(rng.random() < 0.4) if index else 0.0
    error = round(max(own, rng.random() * index / 16), 3)
    return {
        "name": f"act_{index}" if index < 36 else "logits",
        "operator": ("input", *("Conv+Relu", "Conv", "Add") * 12)[index],
        "max_error_steps": error,
        "mean_error_steps": round(error / 40, 5),
        "own_max_error_steps": own,
        "own_mean_error_steps": round(own * rng.random() / 500, 5),
        "share_off": round(error / 100, 5),
        "cosine": round(1 - error / 1e4, 6),
    }


def _latency_row(one: Model, samples: list[float]) -> dict[str, Any]:
    row: dict[str, Any] = {
        "deployment": f"{one.backend}-{one.precision}",
        "backend": one.backend,
        "precision": one.precision,
        "ships": one.ships,
        "latency_kind": "wall",
        "note": one.note,
    }
    if not samples:
        return row
    ordered = sorted(samples)
    p50 = ordered[99]
    return row | {
        "p50_ms": p50,
        "p90_ms": ordered[179],
        "p95_ms": ordered[189],
        "p99_ms": ordered[197],
        "ci95_ms": [ordered[88], ordered[112]],
        "timed_runs": len(samples),
        "warmup_runs": 20,
        "load_ms": 12.5,
        "peak_memory_bytes": 38_400_000,
        "threads": 1,
        "int8_speedup": 2.33 if one.precision == "int8" else None,
    }


_FROM_TRAINED = {
    "exact_images": 199,
    "host_exact_images": 199,
    "same_answers": 200,
    "host_same_answers": 200,
    "max_steps": 1,
    "host_max_steps": 1,
}


def _counted(one: Model) -> dict[str, Any]:
    """Return what the emulator adds to a row: a model that takes 1 ms has a million instructions."""
    if one.p50_ms is None:
        return {}
    total = round(1e6 * one.p50_ms)
    classes = {"dot_product": total // 2, "i8mm": 0, "simd": total // 10, "loads": total // 5}
    top1 = one.top1 or 0.0
    return {
        "latency_kind": "guest_instructions",
        "guest_instructions": {
            "total": total,
            "smallest": total - (one.backend == "onnxruntime") * total // 100,
            "largest": total,
            "runs": 3,
            "classes": classes,
        },
        "on_device": {
            "images": 200,
            "exact_images": 200 - 3 * (one.backend == "mnn"),
            "same_answers": 199 if one.backend == "mnn" else 200,
            "max_difference": 0.125 if one.backend == "mnn" else 0.0,
            "top1": top1,
            "host_top1": top1,
            "max_steps": 1 if one.backend == "mnn" else 0,
            "trained": None if one.backend == "mnn" else _FROM_TRAINED,
        },
        "int8_speedup": 2.33 if one.precision == "int8" else None,
        "peak_memory_bytes": 2_100_000,
        "threads": 1,
    }


def _name(one: Model) -> str:
    return f"{one.backend}-{one.precision}"


def _json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")
