"""Golden pairs: an image, the input that each model gets of it, and its logits, as raw bytes for any language."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobilekd.artifacts import canonical_json
from mobilekd.backend import TensorFacts
from mobilekd.errors import VerificationError
from mobilekd.plugins import BACKENDS
from mobilekd.preprocessing import normalize
from mobilekd.release.manifest import Manifest, ModelEntry

_TFLITE_NOTE = (
    "logits of XNNPACK, LiteRT's default; another version of LiteRT may round some values otherwise. The kernels of "
    "OpResolverType.BUILTIN_REF round alike in every version, and otherwise than XNNPACK"
)


def write_golden(source: Path, folder: Path, manifest: Manifest, models: Sequence[ModelEntry]) -> None:
    """Write golden.json and the files that it names.

    Args:
        source: The bundle, unpacked.
        folder: An existing directory.
        manifest: Of the bundle.
        models: Those that app code was written for.

    Raises:
        VerificationError: The bundle's own input is not what its rule makes of its image.
    """
    pixels = np.load(source / manifest.reference.image, allow_pickle=False)
    values = np.load(source / manifest.reference.input, allow_pickle=False)
    rule = manifest.preprocessing
    if not np.array_equal(normalize(pixels[None], rule.mean, rule.std), values):
        raise VerificationError(
            f"{manifest.reference.input}: is not (pixel / 255 - mean) / std of {manifest.reference.image}"
        )
    pairs = [_pair(source, folder, manifest, model, values) for model in models]
    _write(folder / "image.bin", pixels)
    document = {
        "image": {
            "file": "image.bin",
            "dtype": "uint8",
            "shape": list(pixels.shape),
            "channel_order": rule.channel_order,
            "label": manifest.reference.label,
        },
        "byte_order": "little",
        "labels": list(manifest.labels),
        "preprocessing": rule.model_dump(mode="json"),
        "pairs": pairs,
    }
    (folder / "golden.json").write_text(canonical_json(document), "utf-8")


def model_input(values: NDArray[np.float32], facts: TensorFacts) -> NDArray[Any]:
    """Return what a model file takes, from normalised values [1, channels, height, width]: its layout and its type."""
    laid = np.ascontiguousarray(values.transpose(0, 2, 3, 1)) if facts.layout == "NHWC" else values
    if facts.dtype == "float32":
        return laid
    assert facts.scale is not None
    assert facts.zero_point is not None
    rounded = np.rint(laid / np.float32(facts.scale)) + facts.zero_point
    quantized: NDArray[np.int8] = np.clip(rounded, -128, 127).astype(np.int8)
    return quantized


def _pair(
    source: Path, folder: Path, manifest: Manifest, model: ModelEntry, values: NDArray[np.float32]
) -> dict[str, object]:
    assert model.reference is not None
    taken, logits = model_input(values, model.input), np.load(source / model.reference.file, allow_pickle=False)
    files = {"input": f"{model.deployment}.input.bin", "logits": f"{model.deployment}.logits.bin"}
    _write(folder / files["input"], taken)
    _write(folder / files["logits"], logits)
    edge = {"layout": model.input.layout, "scale": model.input.scale, "zero_point": model.input.zero_point}
    backend = model.options.backend
    return {
        "deployment": model.deployment,
        "model": model.file,
        "input": {"file": files["input"], "dtype": model.input.dtype, "shape": list(taken.shape), **edge},
        "logits": {"file": files["logits"], "dtype": "float32", "shape": list(logits.shape)},
        "top1": manifest.labels[int(logits.argmax())],
        "logit_step": model.reference.logit_step,
        "allowed_steps": BACKENDS.load(backend)().output_parity_steps,
        "note": _TFLITE_NOTE if backend == "tflite" else "",
    }


def _write(path: Path, values: NDArray[Any]) -> None:
    path.write_bytes(np.ascontiguousarray(values, values.dtype.newbyteorder("<")).tobytes())
