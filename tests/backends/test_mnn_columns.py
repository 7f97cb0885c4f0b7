"""Widened layers, on this machine: what they compute, and what they leave alone."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilekd import graph
from mobilekd.backends import _mnn_columns, _mnn_layers, _mnn_rewrite
from mobilekd.backends._mnn_file import read_mnn
from mobilekd.backends.mnn import Mnn
from mobilekd.profile import Deployment
from tests.backends import columns, tiny

INT8 = Deployment(backend="mnn")


def convert(folder, model):
    """Return the folder of a network and the facts of its MNN file."""
    work = tiny.write_tiny(folder, model)
    return work, Mnn().convert(work.for_(INT8))


def channels(work, facts):
    """Return how many output channels each layer of a file has, by layer."""
    ops = read_mnn(work.request.out / facts.file).ops
    return {op.name.partition("__")[0]: len(op.weight_scales) for op in ops if op.weights is not None}


def not_widened(model, layers):
    return model, tuple(layers)


@pytest.mark.parametrize("layer", columns.LAYERS)
def test_widened_file_gives_the_same_logits_bit_by_bit(tmp_path, monkeypatch, layer):
    batch = tiny.images(10, seed=2)
    wide, facts = convert(tmp_path / "wide", columns.network(layer))
    monkeypatch.setattr(_mnn_rewrite, "widen", not_widened)
    plain, _ = convert(tmp_path / "plain", columns.network(layer))

    found = [
        tiny.session_logits(Mnn().open(one.request.out / facts.file, facts, kernels="default", threads=1), batch)
        for one in (wide, plain)
    ]

    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize("layer", sorted(columns.LAYERS.keys() - {"depthwise"}))
def test_layers_of_one_pixel_have_an_even_number_of_quads(tmp_path, layer):
    widths = channels(*convert(tmp_path, columns.network(layer)))

    assert {name: width for name, width in widths.items() if name in columns.ONE_PIXEL and -(-width // 4) % 2} == {}


@pytest.mark.parametrize(("pixels", "width"), [(1, 16), (2, 12), (3, 16), (49, 16), (64, 12)])
def test_layer_is_widened_where_its_pixels_are_odd(tmp_path, pixels, width):
    assert channels(*convert(tmp_path, columns.chain(pixels, 12)))["tested"] == width


@pytest.mark.parametrize(("trained", "width"), [(1, 8), (4, 8), (5, 5), (8, 8), (9, 16), (12, 16), (13, 13), (16, 16)])
def test_layer_is_widened_where_its_quads_are_odd(tmp_path, trained, width):
    assert channels(*convert(tmp_path, columns.chain(1, trained)))["tested"] == width


def test_depthwise_convolution_keeps_its_width(tmp_path):
    assert channels(*convert(tmp_path, columns.network("depthwise")))["tested"] == 12


def test_app_sees_as_many_logits_as_there_are_classes(tmp_path):
    work, facts = convert(tmp_path, tiny.qdq_model())
    session = Mnn().open(work.request.out / facts.file, facts, kernels="default", threads=1)

    assert (facts.output.shape, tiny.session_logits(session, tiny.images(1)).shape) == ((1, 10), (1, 10))


def test_added_channels_have_weights_and_biases_of_zero(tmp_path):
    work, facts = convert(tmp_path, tiny.qdq_model())
    ops = read_mnn(work.request.out / facts.file).ops
    linear = next(op for op in ops if op.name.startswith("logits"))

    assert (np.any(linear.weights.reshape(16, 16)[10:]), np.any(linear.bias[10:])) == (False, False)


def test_weight_with_one_scale_keeps_it(tmp_path):
    work = tiny.write_tiny(tmp_path)
    layer = _mnn_layers.int8_layers(graph.load(work.request.stripped_onnx), graph.read_table(tiny.qdq_model()))[-1]
    wide = replace(layer, trained_channels=10)

    assert _mnn_columns.padded_scales([0.5], wide) == [0.5]


@given(st.integers(1, 4096))
def test_padded_is_the_least_multiple_of_eight_that_holds_all_channels(count):
    found = _mnn_columns.padded(count)

    assert (found % 8, 0 <= found - count < 8) == (0, True)
