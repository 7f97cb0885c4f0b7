"""What a device is fed and gives, against the host backends' own sessions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mobilekd.backend import TensorFacts
from mobilekd.backends._tflite_session import TfliteSession
from mobilekd.backends.onnxruntime import _quantized
from mobilekd.benchmarking.tensors import pack, unpack, write_inputs
from mobilekd.errors import DeviceError, StageError
from tests.backends.tiny import images

SHAPE = (2, 3, 4, 5)
BATCHES = arrays(np.float32, SHAPE, elements=st.floats(-4, 4, width=32))


def facts(dtype: str = "float32", layout: str = "NCHW", scale: float | None = None, zero_point: int = 0) -> TensorFacts:
    shape = (1, *SHAPE[1:]) if layout == "NCHW" else (1, 4, 5, 3)
    return TensorFacts("image", shape, dtype, layout, scale, None if scale is None else zero_point)


def halves(scale: float) -> "np.ndarray":
    """Return an image of the tiny network's size whose values are ties: multiples of half a step."""
    steps = (np.arange(3 * 8 * 8) - 96) / 2
    return np.float32(steps * scale).reshape(1, 3, 8, 8)


@given(batch=BATCHES)
def test_float_images_come_back_as_they_were(batch) -> None:
    assert np.array_equal(unpack(pack(batch, facts()), facts(), 2), batch.reshape(2, -1))


@given(batch=BATCHES)
def test_nhwc_has_the_channels_last(batch) -> None:
    nhwc = facts(layout="NHWC")
    assert np.array_equal(unpack(pack(batch, nhwc), nhwc, 2).reshape(2, 4, 5, 3), batch.transpose(0, 2, 3, 1))


@given(batch=BATCHES, scale=st.floats(0.0625, 0.25, width=32), zero_point=st.integers(-20, 20))
def test_int8_moves_a_value_by_at_most_half_a_step(batch, scale, zero_point) -> None:
    form = facts("int8", scale=scale, zero_point=zero_point)
    clipped = np.clip(batch, (-128 - zero_point) * scale, (127 - zero_point) * scale).reshape(2, -1)
    assert np.abs(unpack(pack(batch, form), form, 2) - clipped).max() <= 0.5001 * scale


@given(
    steps=arrays(np.int8, SHAPE),
    scale=st.floats(2**-10, 16, width=32),
    zero_point=st.integers(-128, 127),
)
def test_values_on_the_grid_come_back_to_the_bit(steps, scale, zero_point) -> None:
    form = facts("int8", scale=scale, zero_point=zero_point)
    assert pack(unpack(steps.tobytes(), form, 2).reshape(SHAPE), form) == steps.tobytes()


def test_ties_go_to_the_even_step_and_the_ends_are_kept() -> None:
    form = TensorFacts("x", (1, 1, 1, 6), "int8", "NCHW", 1.0, 0)
    values = np.float32([0.5, 1.5, 2.5, -0.5, 127.5, -200]).reshape(1, 1, 1, 6)
    assert np.frombuffer(pack(values, form), np.int8).tolist() == [0, 2, 2, 0, 127, -128]


@pytest.mark.parametrize("batch", [images(1), images(1, seed=7)], ids=["one", "other"])
def test_int8_images_are_what_a_tflite_session_feeds(tiny, batch) -> None:
    assert fed(tiny["tflite"], batch) == pack(batch, tiny["tflite"].facts.input)


def test_ties_are_rounded_as_a_tflite_session_does(tiny) -> None:
    image = halves(tiny["tflite"].facts.input.scale)
    assert fed(tiny["tflite"], image) == pack(image, tiny["tflite"].facts.input)


def fed(model, image) -> bytes:
    """Return the bytes that a session put into the model's input."""
    session = TfliteSession(model.file, "xnnpack", 1)
    session.load_input(image)
    return session._interpreter.get_tensor(session._source["index"]).tobytes()


def test_ties_are_rounded_as_an_onnxruntime_session_does() -> None:
    form = TensorFacts("image", (1, 3, 8, 8), "int8", "NCHW", 0.0157, 3)
    assert _quantized(halves(0.0157), form).tobytes() == pack(halves(0.0157), form)


def test_int8_outputs_are_read_as_a_tflite_session_reads_them(tiny) -> None:
    model = tiny["tflite"]
    session = TfliteSession(model.file, "xnnpack", 1)
    session.load_input(images(1))
    session.invoke()
    raw = session._interpreter.get_tensor(session._result["index"]).tobytes()
    assert np.array_equal(unpack(raw, model.facts.output, 1)[0], session.read_output())


def test_written_inputs_are_the_packed_ones(tmp_path) -> None:
    batch = np.ones(SHAPE, np.float32)
    write_inputs(batch, facts(layout="NHWC"), tmp_path / "in.bin")
    assert (tmp_path / "in.bin").read_bytes() == pack(batch, facts(layout="NHWC"))


@pytest.mark.parametrize("given", [0, 239, 241, 480])
def test_outputs_that_are_not_whole_are_told_in_bytes(given: int) -> None:
    form = TensorFacts("logits", (1, 60), "int8", "NC", 0.1, 0)
    with pytest.raises(DeviceError, match=rf"gave {given} bytes for 4 image\(s\), expected 240"):
        unpack(b"\0" * given, form, 4)


def test_float_outputs_that_are_cut_in_a_number_are_told_in_bytes() -> None:
    form = TensorFacts("logits", (1, 10), "float32", "NC")
    with pytest.raises(DeviceError, match=r"gave 39 bytes for 1 image\(s\), expected 40"):
        unpack(b"\0" * 39, form, 1)


def test_a_type_that_no_deployment_has_is_named() -> None:
    with pytest.raises(StageError, match="tensor image is of type 'float16'") as caught:
        pack(np.ones(SHAPE, np.float32), facts("float16"))
    assert caught.value.hint == "known: float32, int8"


def test_int8_without_a_scale_is_refused() -> None:
    with pytest.raises(StageError, match="int8 without a scale"):
        pack(np.ones(SHAPE, np.float32), facts("int8"))
