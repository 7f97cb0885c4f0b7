"""Laws that hold for every operator and every backend of this package that runs on the host or parses its input."""

import numpy as np
import pytest

from mobilekd.backends.mnn import Mnn
from mobilekd.backends.onnxruntime import Onnxruntime
from mobilekd.backends.tensorrt import Tensorrt
from mobilekd.profile import Deployment, Target
from mobilekd.quant_table import load_table
from mobilekd.reference_network import ReferenceNetwork
from tests.backends import operators, tiny

RTX = Target(os="linux", abi="x86_64", compute_capability="8.6")


def own_errors(work, backend, facts, images):
    """Return, by tensor, how far each value is, in steps, from what the trained operator makes of the file's inputs."""
    scales = {one.name: one.scale[0] for one in load_table(work.request.quant_table).with_role("activation")}
    reference = ReferenceNetwork(work.request.qdq_onnx)
    errors = {name: [] for name in reference.names}
    for image in images:
        traced = backend.trace(work.request.out / facts.file, facts, image[None], reference.names, kernels="default")
        expected = reference.run(image[None], {name: value for name, value in traced.items() if name != "image"})
        for name, value in traced.items():
            errors[name].append(np.abs(value - expected[name]).reshape(-1) / scales[name])
    return {name: np.concatenate(found) for name, found in errors.items() if found}


@pytest.fixture(params=[Mnn, Onnxruntime], ids=["mnn", "onnxruntime"])
def backend(request):
    return request.param()


@pytest.mark.parametrize("operator", sorted(operators.OPERATORS.keys() - set(operators.TIES)))
def test_every_tensor_is_what_the_trained_operator_makes_of_its_inputs(tmp_path, backend, operator):
    work = tiny.write_tiny(tmp_path / "net", operators.network(operator))
    facts = backend.convert(work.for_(Deployment(backend=type(backend).__name__.lower())))

    errors = own_errors(work, backend, facts, tiny.images(3, seed=2))

    assert {name: found.max() for name, found in errors.items() if found.max() > 0.501} == {}


@pytest.mark.parametrize("operator", operators.TIES)
def test_mean_of_integers_on_their_own_scale_differs_in_ties_alone(tmp_path, backend, operator):
    work = tiny.write_tiny(tmp_path / "net", operators.network(operator))
    facts = backend.convert(work.for_(Deployment(backend=type(backend).__name__.lower())))

    errors = own_errors(work, backend, facts, tiny.images(3, seed=2))["x"]

    assert (errors.max() <= 1.001, (errors > 0.501).mean() <= 0.1) == (True, True)


@pytest.mark.parametrize("operator", operators.OPERATORS)
def test_no_layer_runs_in_float(tmp_path, backend, operator):
    work = tiny.write_tiny(tmp_path / "net", operators.network(operator))

    facts = backend.convert(work.for_(Deployment(backend=type(backend).__name__.lower())))

    assert facts.float_ops == ()


@pytest.mark.parametrize("operator", operators.OPERATORS)
def test_tensorrt_builds_with_every_layer_in_int8(tmp_path, operator):
    work = tiny.write_tiny(tmp_path / "net", operators.network(operator))

    facts = Tensorrt().convert(work.for_(Deployment(backend="tensorrt"), RTX))

    assert (facts.float_ops, facts.file) == ((), "tensorrt-int8.engine")


def test_traced_logits_are_those_of_the_session(tmp_path, backend):
    work = tiny.write_tiny(tmp_path / "net", operators.network("squeeze_excite_sigmoid"))
    facts = backend.convert(work.for_(Deployment(backend=type(backend).__name__.lower())))
    file, image = work.request.out / facts.file, tiny.images(1, seed=4)

    traced = backend.trace(file, facts, image, ["logits"], kernels="default")["logits"]

    session = backend.open(file, facts, kernels="default", threads=1)
    np.testing.assert_allclose(traced, tiny.session_logits(session, image), rtol=1e-6)


def test_trace_leaves_out_a_tensor_that_the_file_does_not_have(tmp_path, backend):
    work = tiny.write_tiny(tmp_path / "net", operators.network("add"))
    facts = backend.convert(work.for_(Deployment(backend=type(backend).__name__.lower())))

    traced = backend.trace(work.request.out / facts.file, facts, tiny.images(1), ["ghost", "logits"], kernels="default")

    assert list(traced) == ["logits"]
