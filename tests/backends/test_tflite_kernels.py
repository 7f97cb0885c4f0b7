"""Faults of TFLite's int8 kernels that the writer goes around: a test fails when a new version has mended one."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from mobilekd.backends._tflite_model import ModelBuilder, Option, Quant
from mobilekd.backends._tflite_session import interpreter
from mobilekd.errors import StageError

ALL = np.arange(-128, 128, dtype=np.int8).reshape(1, 16, 16, 1)
SCALES = [(0.0701, 0.0596), (0.0123, 0.0174), (0.0655, 0.0265)]


def run(
    kind: str, image: NDArray[np.int8], scales: tuple[float, float], kernels: str, **more: object
) -> NDArray[np.int8]:
    builder = ModelBuilder()
    source = builder.add_tensor("in", image.shape, "int8", Quant((float(np.float32(scales[0])),)))
    constants = [builder.add_constant(f"c{at}", one) for at, one in enumerate(more.get("constants", ()))]  # type: ignore[arg-type, var-annotated]
    shape: Sequence[int] = more.get("shape", image.shape)  # type: ignore[assignment]
    options: Mapping[str, Option] = more.get("options", {})  # type: ignore[assignment]
    result = builder.add_tensor("out", shape, "int8", Quant((float(np.float32(scales[1])),)))
    builder.add_op(kind, [source, *constants], [result], options)
    session = interpreter(builder.finish([source], [result], {}), kernels, 1)
    session.set_tensor(session.get_input_details()[0]["index"], image)
    session.invoke()
    return np.asarray(session.get_tensor(session.get_output_details()[0]["index"]), np.int8)


def rounded(real: NDArray[np.floating], scale: float) -> NDArray[np.int8]:
    return np.clip(np.rint(real / np.float32(scale)), -128, 127).astype(np.int8)


def share_off(kind: str, function: object, kernels: str, **more: object) -> float:
    """Return the share of the 256 values that a kernel rounds another way, over some scales."""
    assert callable(function)
    found = [
        run(kind, ALL, scales, kernels, **more) != rounded(function(ALL * np.float64(np.float32(scales[0]))), scales[1])
        for scales in SCALES
    ]
    return float(np.mean(found))


def test_xnnpack_changes_a_scale_in_eight_bits_so_a_sum_with_zero_does_it() -> None:
    assert share_off("QUANTIZE", lambda x: x, "xnnpack") > 0.01


@pytest.mark.parametrize("kernels", ["xnnpack", "builtin", "reference"])
def test_leaky_relu_is_a_step_off_so_a_maximum_does_it(kernels: str) -> None:
    assert share_off("LEAKY_RELU", lambda x: np.maximum(x, 0.13 * x), kernels, options={"alpha": 0.13}) > 0.002


@pytest.mark.parametrize("kernels", ["xnnpack", "builtin", "reference"])
def test_hard_swish_is_a_step_off_so_it_runs_in_float(kernels: str) -> None:
    assert share_off("HARD_SWISH", lambda x: x * np.clip(x + 3, 0, 6) / 6, kernels) > 0


@pytest.mark.parametrize("kernels", ["builtin", "reference"])
def test_logistic_has_one_scale_so_it_runs_in_float(kernels: str) -> None:
    with pytest.raises(StageError, match=r"output->params.scale == 1\. / 256 was not true"):
        run("LOGISTIC", ALL, (0.03, 0.0079), kernels)


@pytest.mark.parametrize("kernels", ["xnnpack", "builtin", "reference"])
def test_neg_forgets_the_scales_so_a_product_does_it(kernels: str) -> None:
    assert share_off("NEG", lambda x: -x, kernels) > 0.5


def test_the_reference_kernels_have_no_elu_so_it_is_written_out() -> None:
    with pytest.raises(StageError, match="Didn't find op for builtin opcode 'ELU'"):
        run("ELU", ALL, (0.03, 0.03), "reference")


@pytest.mark.parametrize("kernels", ["builtin", "reference"])
def test_mean_is_a_step_off_over_small_maps_so_it_runs_in_float(kernels: str) -> None:
    image = np.random.default_rng(0).integers(-128, 128, (1, 2, 2, 512)).astype(np.int8)
    axes = np.array([1, 2], np.int32)
    more = {"shape": (1, 1, 1, 512), "constants": [axes], "options": {"keepDims": True}}
    found = run("MEAN", image, (0.031, 0.0237), kernels, **more)
    wanted = rounded((image * np.float64(np.float32(0.031))).mean((1, 2), keepdims=True), 0.0237)
    assert np.mean(found != wanted) > 0.02


@pytest.mark.parametrize("kernels", ["xnnpack", "builtin", "reference"])
def test_a_pool_keeps_its_scale_so_a_mean_over_windows_runs_in_float(kernels: str) -> None:
    image = np.full((1, 4, 4, 8), 100, np.int8)
    window = {"padding": 1, "strideH": 2, "strideW": 2, "filterHeight": 2, "filterWidth": 2}
    found = run("AVERAGE_POOL_2D", image, (0.02, 0.04), kernels, shape=(1, 2, 2, 8), options=window)
    assert set(found.ravel()) == {100}


@pytest.mark.parametrize("kernels", ["builtin", "reference"])
def test_bilinear_resize_is_a_step_off_so_it_runs_in_float(kernels: str) -> None:
    image = np.random.default_rng(0).integers(-128, 128, (1, 4, 4, 16)).astype(np.int8)
    more = {"shape": (1, 8, 8, 16), "constants": [np.array([8, 8], np.int32)], "options": {"halfPixelCenters": True}}
    found = run("RESIZE_BILINEAR", image, (0.03, 0.03), kernels, **more).astype(np.int32)
    row = np.concatenate([image[:, :1], image, image[:, -1:]], 1).astype(np.float64)
    tall = np.stack([row[:, :-1] * 0.25 + row[:, 1:] * 0.75, row[:, :-1] * 0.75 + row[:, 1:] * 0.25], 2)
    tall = tall.reshape(1, -1, 4, 16)[:, 1:-1]
    column = np.concatenate([tall[:, :, :1], tall, tall[:, :, -1:]], 2)
    wide = np.stack(
        [column[:, :, :-1] * 0.25 + column[:, :, 1:] * 0.75, column[:, :, :-1] * 0.75 + column[:, :, 1:] * 0.25], 3
    )
    wanted = wide.reshape(1, 8, -1, 16)[:, :, 1:-1]
    assert np.mean(np.abs(found - wanted) > 0.5) > 0.01


@pytest.mark.parametrize(("kind", "version"), [("TILE", 3), ("DEPTH_TO_SPACE", 2)])
def test_the_reference_kernels_lack_the_version_of_int8_so_version_1_is_written(
    kind: str, version: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("mobilekd.backends._tflite_model.op_version", lambda *_: version)
    constants = {"TILE": [np.array([1, 1, 1, 1], np.int32)], "DEPTH_TO_SPACE": []}[kind]
    with pytest.raises(StageError, match=f"builtin opcode '{kind}' version '{version}'"):
        run(
            kind, ALL, (0.03, 0.03), "reference", constants=constants, options={"blockSize": 1} if not constants else {}
        )


def depthwise(size: int) -> bytes:
    """Return a model of one int8 depthwise convolution on 16x16x64."""
    builder, shape, scales = ModelBuilder(), (1, 16, 16, 64), (0.01,) * 64
    source, result = (builder.add_tensor(name, shape, "int8", Quant((0.05,))) for name in ("in", "out"))
    weight = builder.add_constant("w", np.ones((1, size, size, 64), np.int8), Quant(scales, 0, 3))
    bias = builder.add_constant("b", np.zeros(64, np.int32), Quant((0.0005,) * 64))
    options = {"padding": 0, "strideH": 1, "strideW": 1, "depthMultiplier": 1}
    builder.add_op("DEPTHWISE_CONV_2D", [source, weight, bias], [result], options)
    return builder.finish([source], [result], {})


def fastest_s(model: bytes, kernels: str) -> float:
    session = interpreter(model, kernels, 1)
    times = []
    for _ in range(10):
        begin = time.thread_time()  # what the machine does beside it does not count
        session.invoke()
        times.append(time.thread_time() - begin)
    return min(times)


@pytest.mark.slow
def test_xnnpack_is_slow_with_large_depthwise_windows_so_the_builtin_kernel_gets_them() -> None:
    small, large = depthwise(5), depthwise(7)
    assert fastest_s(small, "xnnpack") < fastest_s(small, "builtin")
    assert fastest_s(large, "xnnpack") > 4 * fastest_s(large, "builtin")
