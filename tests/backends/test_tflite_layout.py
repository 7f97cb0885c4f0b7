from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mobilekd.backends import _tflite_layout as layout
from mobilekd.backends._tflite_graph import count_kind, read_model, view
from mobilekd.backends._tflite_session import TfliteSession
from mobilekd.backends._tflite_write import write
from tests.backends.small_graphs import Step, float_graph, run_nodes, save

SIZES = st.lists(st.sampled_from([1, 2, 3, 4, 6]), min_size=1, max_size=5)


@st.composite
def laid_out(draw: st.DrawFn) -> tuple[np.ndarray, tuple[int, ...]]:
    """An ONNX tensor and an order of its axes."""
    shape = draw(SIZES)
    axes = draw(st.permutations(range(len(shape))))
    return np.arange(int(np.prod(shape))).reshape(shape), tuple(axes)


@st.composite
def reshapes(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Two shapes of equally many values."""
    factors = draw(st.lists(st.sampled_from([1, 2, 3]), min_size=1, max_size=6))
    shapes = []
    for _ in range(2):
        cuts = sorted(draw(st.lists(st.integers(0, len(factors)), max_size=4)))
        parts = zip([0, *cuts], [*cuts, len(factors)], strict=True)
        shapes.append(tuple(int(np.prod(factors[begin:end])) for begin, end in parts))
    return shapes[0], shapes[1]


@given(laid_out(), st.data())
def test_a_transpose_that_moves_nothing_holds_the_transposed_values(
    tensor: tuple[np.ndarray, tuple[int, ...]], data: st.DataObject
) -> None:
    value, axes = tensor
    order = data.draw(st.permutations(range(value.ndim)))
    moved = layout.through_transpose(axes, order)
    np.testing.assert_array_equal(value.transpose(axes), value.transpose(order).transpose(moved))


@given(reshapes(), st.data())
def test_a_reshape_that_moves_nothing_holds_the_reshaped_values(
    shapes: tuple[tuple[int, ...], tuple[int, ...]], data: st.DataObject
) -> None:
    before, after = shapes
    axes = tuple(data.draw(st.permutations(range(len(before)))))
    found = layout.through_reshape(before, axes, after)
    assume(found is not None)
    assert found is not None
    value = np.arange(int(np.prod(before))).reshape(before)
    np.testing.assert_array_equal(value.transpose(axes).ravel(), value.reshape(after).transpose(found).ravel())


@given(reshapes())
def test_a_tensor_that_lies_as_in_onnx_can_always_be_reshaped(
    shapes: tuple[tuple[int, ...], tuple[int, ...]],
) -> None:
    before, after = shapes
    assert layout.through_reshape(before, layout.identity(len(before)), after) is not None


@given(laid_out())
def test_the_stored_shape_is_that_of_the_values_as_they_lie(tensor: tuple[np.ndarray, tuple[int, ...]]) -> None:
    value, axes = tensor
    assert layout.stored(value.shape, axes) == value.transpose(axes).shape


@given(laid_out(), st.data())
def test_a_layout_without_some_axes_holds_the_sums_over_them(
    tensor: tuple[np.ndarray, tuple[int, ...]], data: st.DataObject
) -> None:
    value, axes = tensor
    removed = data.draw(st.sets(st.sampled_from(range(value.ndim))))
    stored = value.transpose(axes).sum(tuple(axes.index(axis) for axis in removed))
    np.testing.assert_array_equal(stored, value.sum(tuple(removed)).transpose(layout.without(axes, tuple(removed))))


@pytest.mark.parametrize(
    ("shape", "axes", "result", "wanted"),
    [
        ((1, 8, 6, 6), layout.NHWC, (1, 8, 36), (0, 2, 1)),
        ((1, 8, 1, 1), layout.NHWC, (1, 8), (0, 1)),
        ((1, 8), (0, 1), (1, 8, 1, 1), layout.NHWC),
        ((1, 8, 6, 6), layout.NHWC, (1, 288), None),
        ((1, 36, 8), (0, 1, 2), (1, 6, 6, 8), (0, 1, 2, 3)),
    ],
)
def test_known_reshapes(
    shape: tuple[int, ...], axes: layout.Axes, result: tuple[int, ...], wanted: layout.Axes | None
) -> None:
    assert layout.through_reshape(shape, axes, result) == wanted


@st.composite
def windows(draw: st.DrawFn) -> tuple[Step, tuple[int, ...]]:
    """A Conv of weights "w" or a MaxPool, and the shape of its image."""
    pairs = [st.tuples(st.integers(low, high), st.integers(low, high)) for low, high in ((3, 9), (1, 3), (1, 3))]
    size, kernel, strides = (draw(pair) for pair in pairs)
    is_pool, dilation = draw(st.booleans()), draw(st.integers(1, 2))
    spans = [one if is_pool else (one - 1) * dilation + 1 for one in kernel]
    most = [one - 1 if is_pool else 2 for one in kernel]
    pads = [draw(st.integers(0, most[at % 2])) for at in range(4)]
    assume(all(size[at] + pads[at] + pads[at + 2] >= spans[at] for at in (0, 1)))
    common = {"pads": pads, "strides": list(strides), "kernel_shape": list(kernel)}
    conv: Step = ("Conv", ("image", "w"), {**common, "dilations": [dilation] * 2})
    return ("MaxPool", ("image",), common) if is_pool else conv, (1, 2, *size)


@settings(max_examples=60)
@given(windows())
def test_windows_lie_where_onnx_runtime_puts_them(case: tuple[Step, tuple[int, ...]]) -> None:
    step, shape = case
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(3, 2, *np.ravel(step[2]["kernel_shape"]))).astype(np.float32)
    model = float_graph([step], {"w": weight}, shape)
    image = rng.normal(size=shape).astype(np.float32)
    with TemporaryDirectory() as folder:
        made = Path(folder) / "m.tflite"
        write(save(model, Path(folder) / "m.onnx"), made, io="float32", half_weights=False)
        session = TfliteSession(made, "builtin", threads=1)
        session.load_input(image)
        session.invoke()
        np.testing.assert_allclose(session.read_output(), run_nodes(model, image)["logits"][0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("size", "stride", "pads", "wanted"),
    [(7, 2, [1, 1, 1, 1], 0), (8, 2, [1, 1, 1, 1], 1), (8, 2, [0, 0, 1, 1], 0), (8, 1, [1, 1, 1, 1], 0)],
)
def test_a_pad_is_written_only_where_same_is_another(
    size: int, stride: int, pads: list[int], wanted: int, tmp_path: Path
) -> None:
    step = ("Conv", ("image", "w"), {"pads": pads, "strides": [stride] * 2})
    model = float_graph([step], {"w": np.ones((4, 4, 3, 3), np.float32)}, (1, 4, size, size))
    write(save(model, tmp_path / "m.onnx"), tmp_path / "m.tflite", io="float32", half_weights=False)
    assert count_kind(view(read_model(tmp_path / "m.tflite")), "PAD") == wanted
