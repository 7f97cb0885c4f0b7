"""The conformance matrix: is what every backend runs the network that was trained, for the networks that people ship?

    python -m benchmarks.conformance [--data digits | --data cifar10.npz] [--networks NAME ...] [--out DIR]

Each network is distilled for a short time, fine-tuned to int8, converted to every backend by the pipeline that users
run, and compared image by image with its fake-quant network on the whole test split. Finished stages come from the
cache, so a run that was cut off goes on. Writes conformance.json (a list of rows) and conformance.md.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from mobilekd import config
from mobilekd import pipeline as pipelines
from mobilekd.artifacts import Dataset, DeployedModel, ParityReport, Student
from mobilekd.errors import MobilekdError
from mobilekd.pipeline import BuildResult
from mobilekd.workplace import open_workshop

HERE = Path(__file__).parent

NETWORKS = {
    "resnet18": "ResNet, basic blocks",
    "resnet26": "ResNet, bottlenecks",
    "mobilenetv2_100": "MobileNetV2",
    "mobilenetv3_small_100": "MobileNetV3",
    "mobilenetv3_large_100": "MobileNetV3",
    "mobilenetv4_conv_small": "MobileNetV4",
    "efficientnet_lite0": "EfficientNet-Lite",
    "efficientnet_b0": "EfficientNet",
    "mnasnet_100": "MNASNet",
    "regnetx_002": "RegNetX",
    "regnety_002": "RegNetY",
    "repvgg_a0": "RepVGG",
    "mobileone_s0": "MobileOne",
    "ghostnet_100": "GhostNet",
    "ghostnetv2_100": "GhostNetV2",
    "python:benchmarks.zoo:shufflenet_v2": "ShuffleNetV2",
    "python:benchmarks.zoo:vgg11_bn": "VGG-BN",
    "densenet121": "DenseNet",
    "convnext_atto": "ConvNeXt",
    "fastvit_sa12": "FastViT (attention)",
    "mobilevit_xxs": "MobileViT (attention)",
}
"""timm's name, or python:module:factory, and its family."""

SIZES = {"ghostnetv2_100": 64, "mobilevit_xxs": 64}
"""Side of the images in pixels where 32 is too small for a network's smallest map."""


@dataclass(frozen=True, slots=True)
class Row:
    """One network in one backend; shares are 0 to 1, None where the backend can't run on this host.

    Attributes:
        network, family, backend, data, image_size: What was compared, on what.
        top1_fp32, top1_fake_quant, top1_deployed: Share of test images whose answer is the label.
        agreement: Share of test images on which the deployed model answers as the fake-quant network does.
        max_error_steps, mean_error_steps: Difference of a logit, in steps of the int8 output.
        float_ops: Convolution and linear layers that do not run in int8.
        other_float_ops: How many other operators compute in float.
        bytes_ratio: Bytes of the int8 file over bytes of the fp32 file of this backend.
        transposes: TRANSPOSE operators in the TFLite file; None for the others.
        images: Test images.
        convert_s: Seconds of the conversion, read-back included; None when it came from the cache.
        status: "passed" where the tolerance of the matrix holds, "failed", "built, not run", or an error.
    """

    network: str
    family: str
    backend: str
    data: str
    image_size: int
    top1_fp32: float | None
    top1_fake_quant: float | None
    top1_deployed: float | None
    agreement: float | None
    max_error_steps: float | None
    mean_error_steps: float | None
    float_ops: int | None
    other_float_ops: int | None
    bytes_ratio: float | None
    transposes: int | None
    images: int | None
    convert_s: float | None
    status: str


def main(arguments: Sequence[str]) -> int:
    """Build every network that was asked for; return 1 when one does not hold."""
    options = training_options().parse_args(arguments)
    rows: list[Row] = []
    for network in options.networks or NETWORKS:
        started = time.monotonic()
        found = _rows(network, options)
        rows += found
        told = ", ".join(f"{row.backend} {row.status}" for row in found)
        print(f"{network}: {told} ({time.monotonic() - started:.0f} s)", file=sys.stderr, flush=True)
        _write(rows, options.out, options.merge)
    return int(any(row.status not in ("passed", "built, not run") for row in rows))


def training_options() -> argparse.ArgumentParser:
    """Return the options of the benchmarks that train the networks of the matrix."""
    parser = argparse.ArgumentParser(description="The networks of the conformance matrix.")
    parser.add_argument("--data", default="digits", help="digits (comes with scikit-learn), or cifar10.npz")
    parser.add_argument("--networks", nargs="*", metavar="NAME", help=f"default: {' '.join(NETWORKS)}")
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--teacher-checkpoint", default="", help="a CIFAR ResNet-20 for cifar10.npz")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--merge", action="store_true", help="keep rows of other networks that are in the file")
    return parser


def student_of(network: str, options: argparse.Namespace) -> tuple[Dataset, Student]:
    """Return the data and the trained float student of a network, from the cache when they are there."""
    result = _build(network, SIZES.get(network, 32), options, until="distill")
    found = (result.newest(Dataset), result.newest(Student))
    assert found[0] is not None
    assert found[1] is not None
    return found[0], found[1]


def _rows(network: str, options: argparse.Namespace) -> list[Row]:
    size = SIZES.get(network, 32)
    try:
        result = _build(network, size, options)
    except MobilekdError as failure:
        nothing = dict.fromkeys(Row.__dataclass_fields__)
        facts = {
            "network": network,
            "family": NETWORKS.get(network, ""),
            "data": _data_name(options),
            "image_size": size,
        }
        return [Row(**{**nothing, **facts, "backend": "all", "status": f"error: {failure.message}"})]  # type: ignore[arg-type]
    return _read(network, size, result, options)


def _data_name(options: argparse.Namespace) -> str:
    return "digits" if options.data == "digits" else "cifar10"


def _build(network: str, size: int, options: argparse.Namespace, *, until: str = "verify") -> BuildResult:
    name = network if ":" in network else f"timm:{network}"
    settings = [f"data.image_size={size}", f"distill.network={name}"]
    settings += [f"{stage}.threads={options.threads}" for stage in ("teacher", "distill", "quantize")]
    if options.data == "digits":
        settings += ["distill.epochs=15", "distill.batch_size=32", "quantize.epochs=1"]
        pipeline = "quickstart"
    else:
        settings += [f"data.path={options.data}", "data.normalization=imagenet", "distill.epochs=2"]
        settings += ["distill.learning_rate=3e-3", "quantize.epochs=0"]
        pipeline = "cifar10"
        if options.teacher_checkpoint:
            settings += ["teacher.network=python:benchmarks.cifar_resnet:resnet20", "teacher.epochs=0"]
            settings += [f"teacher.checkpoint={options.teacher_checkpoint}"]
    overrides = [config.parse_override(one) for one in (*settings, *options.overrides)]
    profile = config.load_profile(str(HERE / "conformance.toml"), overrides)
    with open_workshop(options.cache) as workshop:
        return pipelines.build(config.load_pipeline(pipeline, overrides), profile, workshop, until=until)


def _read(network: str, size: int, result: BuildResult, options: argparse.Namespace) -> list[Row]:
    found = read_rows(network, NETWORKS.get(network, ""), _data_name(options), result)
    return [Row(**{**row, "image_size": size}) for row in found]


def read_rows(network: str, family: str, data: str, result: BuildResult) -> list[dict[str, Any]]:
    """Return the rows of a build that ended with its proof, one for each int8 model and kernel set; see `Row`."""
    report = result.newest(ParityReport)
    assert report is not None
    parity = json.loads((report.path / "parity.json").read_text(encoding="utf-8"))
    floats = {row["backend"]: row for row in parity["rows"] if row["precision"] == "fp32"}
    top1_fp32 = next(row["top1_reference"] for row in floats.values() if row["top1_reference"])
    seconds = {one.name: round(one.seconds, 2) for one in result.stages if not one.cached}
    rows = []
    for row in parity["rows"]:
        if row["precision"] != "int8":
            continue
        backend, is_default = row["backend"], row["kernels"] in ("default", "xnnpack")
        made = Row(
            network=network,
            family=family,
            backend=backend if is_default else f"{backend} ({row['kernels']} kernels)",
            data=data,
            image_size=32,
            top1_fp32=top1_fp32,
            top1_fake_quant=row["top1_reference"],
            top1_deployed=row["top1_deployed"],
            agreement=row["top1_agreement"],
            max_error_steps=row["max_error_steps"],
            mean_error_steps=row["mean_error_steps"],
            float_ops=row["float_ops"],
            other_float_ops=len(row["other_float_ops"]),
            bytes_ratio=round(row["bytes"] / floats[backend]["bytes"], 4),
            transposes=_transposes(result) if backend == "tflite" else None,
            images=row["images"],
            convert_s=seconds.get(f"convert:{row['deployment']}"),
            status="",
        )
        rows.append(asdict(replace(made, status=_status(row, top1_fp32))))
    return rows


def _transposes(result: BuildResult) -> int | None:
    from mobilekd.backends import _tflite_graph as tfl

    for one in result.made:
        if isinstance(one, DeployedModel):
            facts = json.loads((one.path / "deployment.json").read_text(encoding="utf-8"))
            if facts["deployment"]["backend"] == "tflite" and facts["deployment"]["precision"] == "int8":
                return tfl.count_kind(tfl.view(tfl.read_model(one.path / facts["file"])), "TRANSPOSE")
    return None


def _status(row: dict[str, Any], top1_fp32: float) -> str:
    """Return whether the floors hold: 0.2 points of top-1, 99 % agreement (98 % below 80 % top-1), no float layer."""
    if row["top1_agreement"] is None:
        return str(row["status"]) if not row["float_ops"] else "failed: float layers"
    failures = []
    if abs(row["top1_deployed"] - row["top1_reference"]) > 0.002 + 1e-9:
        failures.append("top-1")
    if row["top1_agreement"] < (0.99 if top1_fp32 >= 0.8 else 0.98):
        failures.append("agreement")
    if row["float_ops"]:
        failures.append("float layers")
    return f"failed: {', '.join(failures)}" if failures else "passed"


def _write(rows: list[Row], out: Path, merge: bool) -> None:  # noqa: FBT001
    file = out / "conformance.json"
    documents = [asdict(row) for row in rows]
    if merge and file.is_file():
        made = {(row.network, row.data) for row in rows}
        old = json.loads(file.read_text(encoding="utf-8"))
        documents = [one for one in old if (one["network"], one["data"]) not in made] + documents
    out.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(documents, indent=1) + "\n", encoding="utf-8")
    (out / "conformance.md").write_text(_page(documents), encoding="utf-8")


def _page(rows: list[dict[str, Any]]) -> str:
    parts = [_HEAD]
    for data in dict.fromkeys(row["data"] for row in rows):
        ours = [row for row in rows if row["data"] == data]
        images = max(row["images"] or 0 for row in ours)
        parts.append(f"\n## {'Handwritten digits' if data == 'digits' else 'CIFAR-10'}, {images:,} test images\n\n")
        parts.append("| " + " | ".join(_COLUMNS) + " |\n" + "|" + "---|" * len(_COLUMNS) + "\n")
        parts += ["| " + " | ".join(_cells(row)) + " |\n" for row in ours]
    return "".join(parts)


_COLUMNS = (
    "network", "px", "backend", "fp32", "fake quant", "deployed", "agreement", "max error (steps)", "float conv/linear",
    "other float", "int8 / fp32 bytes", "TRANSPOSE", "convert", "status",
)  # fmt: skip

_HEAD = """# Conformance matrix

Is what a backend runs the network that was trained? Every network is trained for a short time on real images,
fine-tuned or calibrated to int8, converted to each backend, and its answers are compared with those of the fake-quant
network on the whole test split. Accuracy says nothing about a network here: training is short and the images are
small. What counts is the difference between the columns.

Made by `python -m benchmarks.conformance` (digits) and `python -m benchmarks.conformance --data cifar10.npz
--teacher-checkpoint resnet20.th` (CIFAR-10, the published CIFAR ResNet-20 as the teacher), with `--networks` and
`--merge` for a part; benchmarks/conformance.py has the settings. CIFAR-10: two epochs of distillation, int8 by
calibration alone. Digits: 15 epochs, one epoch of QAT.

A row has passed when top-1 is within 0.2 points of the fake-quant network (on 360 images: the same number right), the
answers agree on 99 % of the images (98 % where fp32 top-1 is below 80 %), and every convolution and linear layer is
int8. TFLite runs with XNNPACK, its default, unless the row names other kernels; those are compared on the first 1,000
images. TensorRT engines are built and not run: no GPU.
"""


def _cells(row: dict[str, Any]) -> list[str]:
    def share(value: float | None) -> str:
        return "–" if value is None else f"{value:.2%}".replace("%", " %")

    def plain(value: object) -> str:
        return "–" if value is None else str(value)

    seconds = "–" if row["convert_s"] is None else f"{row['convert_s']:.1f} s"
    name = row["network"].removeprefix("python:benchmarks.").replace("zoo:", "").replace("cifar_resnet:", "cifar ")
    shares = [share(row[key]) for key in ("top1_fp32", "top1_fake_quant", "top1_deployed", "agreement")]
    counts = [
        plain(row[key]) for key in ("max_error_steps", "float_ops", "other_float_ops", "bytes_ratio", "transposes")
    ]
    return [name, str(row["image_size"]), row["backend"], *shares, *counts, seconds, row["status"]]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
