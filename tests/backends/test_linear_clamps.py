"""A clamp behind a linear layer, in every backend that runs here."""

import numpy as np
import pytest

from mobilekd import graph
from mobilekd.backends import _mnn_clamps
from mobilekd.backends.mnn import Mnn
from mobilekd.backends.onnxruntime import Onnxruntime
from mobilekd.backends.tflite import Tflite
from mobilekd.errors import StageError
from mobilekd.profile import Deployment
from tests.backends import tiny
from tests.backends.tiny import CLASSES, _Builder

CLAMPS = {"Relu": (), "ReLU6": (0.0, 6.0), "bounds": (-0.31, 0.4)}


def network(clamp):
    net = _Builder(3)
    stem = net.layer("Conv", "stem", net.rounded("image", 2.0291 / 127), (8, 3, 3, 3), pads=[1, 1, 1, 1])
    pooled = net.rounded(net.node("GlobalAveragePool", "pooled", [net.rounded(stem, 2.0291 / 127)]), 0.8117 / 127)
    flat = net.rounded(net.node("Flatten", "flat", [pooled]), 0.8117 / 127)
    reduced = net.layer("Gemm", "reduced", flat, (16, 8), transB=1)
    net.constants |= {f"bound_{bound}": np.float32(bound) for bound in CLAMPS[clamp]}
    bounds = [f"bound_{bound}" for bound in CLAMPS[clamp]]
    hidden = net.rounded(net.node("Clip" if bounds else "Relu", "hidden", [reduced, *bounds]), 0.7133 / 127)
    net.rounded(net.layer("Gemm", "classifier", hidden, (CLASSES, 16), transB=1), 0.6133 / 127, real="logits")
    return graph.snap_biases(net.model())


@pytest.mark.parametrize("clamp", CLAMPS)
@pytest.mark.parametrize("backend", [Mnn, Onnxruntime, Tflite])
def test_logits_are_those_of_the_trained_network(tmp_path, backend, clamp):
    work = tiny.write_tiny(tmp_path / "net", network(clamp))
    facts = backend().convert(work.for_(Deployment(backend=backend.__name__.lower())))
    images = tiny.images(3, seed=2)
    session = backend().open(work.request.out / facts.file, facts, kernels=backend.kernels[0], threads=1)

    off = np.abs(tiny.session_logits(session, images) - tiny.reference_logits(work.request.qdq_onnx, images)).max()

    assert (facts.float_ops, off) == ((), pytest.approx(0, abs=1e-6))


def test_mnn_loses_the_scales_of_a_linear_layer_that_it_fuses_a_clamp_into(tmp_path, monkeypatch):
    monkeypatch.setattr(_mnn_clamps, "_written_out", lambda model, linear: model.graph.node)
    work = tiny.write_tiny(tmp_path / "net", network("Relu"))

    with pytest.raises(StageError, match=r"'reduced.weight' is in the quantization table and not in the file"):
        Mnn().convert(work.for_(Deployment(backend="mnn")))
