"""Rank the layers of the float student by what each costs in int8, and price the mixed network."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from mobilekd.artifacts import Dataset, SensitivityReport, Student, write_json
from mobilekd.stage import Context, Inputs
from mobilekd.stages._calibration import RANKED_IMAGES, CalibrationStage, Calibrator, ranking
from mobilekd.stages._packages import missing_packages

if TYPE_CHECKING:
    from mobilekd.training.data import Images

SCHEMA = "mobilekd.sensitivity/1"
_HOST_NOTE = "wall time of ONNX Runtime on this host, one thread, median; not the target's"


class Sensitivity(CalibrationStage):
    """Options of the ranking: those of calibration, as [quantize] has them, and how many images are answered.

    Attributes:
        images: Images of the calibration split on which layers are ranked, from the first.
    """

    needs = (Dataset, Student)
    makes = SensitivityReport
    measures: ClassVar[bool] = True
    tools: ClassVar[tuple[str, ...]] = ("torch", "timm", "numpy", "torchao", "onnx", "onnxsim", "onnxruntime")

    images: int = Field(default=RANKED_IMAGES, ge=1)
    threads: int = Field(default=2, ge=1)
    seed: int = 0

    def missing(self) -> tuple[str, ...]:
        """Return the packages that are not installed."""
        train = missing_packages("train", ("torch", "timm", "torchvision", "safetensors", "torchao"))
        priced = ("onnx", "onnxscript", "onnxsim", "onnxruntime") if self.max_top1_drop is not None else ()
        return (*train, *missing_packages("onnx", priced))

    def run(self, inputs: Inputs, context: Context) -> None:
        """Write sensitivity.json.

        Raises:
            StageError: Not even all layers in float lose as little as max_top1_drop allows.
        """
        import torch

        from mobilekd.training.data import open_split

        torch.manual_seed(self.seed)
        torch.set_num_threads(self.threads)
        folder = inputs.newest(Dataset).path
        train, validation = open_split(folder, "train"), open_split(folder, "calibration")
        calibrator = Calibrator(self, inputs.newest(Student), train)
        ranked = ranking(calibrator.calibrated(frozenset(self.keep_float)), validation, self.images, context.progress)
        report: dict[str, Any] = {
            "schema": SCHEMA,
            "split": "calibration",
            **asdict(ranked),
            "keep_float": sorted(self.keep_float),
            "mixed": None if self.max_top1_drop is None else self._mixed(calibrator, validation, context),
        }
        write_json(context.out / "sensitivity.json", report)

    def _mixed(self, calibrator: Calibrator, validation: "Images", context: Context) -> dict[str, Any]:
        """Return which layers the build would keep in float, and the price."""
        from mobilekd.stages._price import host_wall_ms

        assert self.max_top1_drop is not None
        network, mixed = calibrator.mixed(self.max_top1_drop, validation, context.progress)
        if not mixed.layers:
            return {**asdict(mixed), "host_wall_ms": None}
        with context.progress.bar("sensitivity: int8 and mixed in ONNX Runtime", 1) as bar:
            networks = {"int8": calibrator.calibrated(frozenset(self.keep_float)), "mixed": network}
            times = host_wall_ms(networks, calibrator.example[:1], context.scratch)
            bar.advance()
        return {**asdict(mixed), "host_wall_ms": {**times, "note": _HOST_NOTE}}
