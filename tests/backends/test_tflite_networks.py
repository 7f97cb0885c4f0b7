"""Whole networks: in int8 what can be, nothing moved in memory, every tensor what its operator makes of it."""

from dataclasses import replace

import numpy as np
import pytest

from mobilekd.backend import Conversion
from mobilekd.backends._tflite_graph import count_kind, read_model, view
from mobilekd.backends.tflite import Tflite
from mobilekd.profile import Deployment
from mobilekd.quant_table import load_table
from mobilekd.reference_network import ReferenceNetwork
from tests.backends.networks import write_network
from tests.backends.tiny import reference_logits, session_logits

pytestmark = pytest.mark.slow
NAMES = (
    "timm:mobilenetv3_small_050",
    "timm:regnetx_002",
    "timm:ghostnet_050",
    "timm:convnext_atto",
    "python:benchmarks.zoo:shufflenet_v2",
)


@pytest.fixture(scope="module", params=NAMES)
def network(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Conversion:
    return write_network(request.param, 32, tmp_path_factory.mktemp("network") / "files")


def for_tflite(network: Conversion, precision: str) -> Conversion:
    deployment = Deployment.model_validate({"backend": "tflite", "precision": precision})
    out = network.out / precision
    out.mkdir(exist_ok=True)
    return replace(network, deployment=deployment, out=out)


def test_a_network_becomes_int8_without_a_transpose(network: Conversion) -> None:
    request = for_tflite(network, "int8")
    facts = Tflite().convert(request)
    assert facts.float_ops == ()
    assert count_kind(view(read_model(request.out / facts.file)), "TRANSPOSE") == 0


@pytest.mark.parametrize("kernels", Tflite.kernels)
def test_no_operator_of_a_network_is_more_than_one_rounding_off(network: Conversion, kernels: str) -> None:
    request = for_tflite(network, "int8")
    facts, image = Tflite().convert(request), np.load(network.qdq_onnx.parent / "samples.npy")[:1]
    reference, scales = ReferenceNetwork(request.qdq_onnx), load_table(request.quant_table).by_name()
    traced = Tflite().trace(request.out / facts.file, facts, image, reference.names, kernels=kernels)
    wanted = reference.run(image, traced)
    off = {name: np.rint(np.abs(traced[name] - wanted[name]) / scales[name].scale[0]) for name in traced}
    assert set(traced) == set(reference.names)
    assert max(float(one.max()) for one in off.values()) <= 1
    assert np.mean([one.mean() for one in off.values()]) < 0.005


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_float_network_computes_what_onnx_runtime_does(network: Conversion, precision: str) -> None:
    request = for_tflite(network, precision)
    facts, batch = Tflite().convert(request), np.load(network.qdq_onnx.parent / "samples.npy")[:4]
    session = Tflite().open(request.out / facts.file, facts, kernels="xnnpack", threads=1)
    wanted = reference_logits(request.float_onnx, batch)
    error = np.abs(session_logits(session, batch) - wanted).max() / np.abs(wanted).max()
    assert error < {"fp32": 1e-4, "fp16": 2e-2}[precision]
