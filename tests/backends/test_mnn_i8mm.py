"""MNN's int8 kernels for i8mm on an emulated CPU that has it, against those of a CPU that has not."""

import numpy as np
import pytest

from mobilekd.backends import _mnn_rewrite
from mobilekd.backends.mnn import Mnn
from mobilekd.profile import Deployment
from tests.backends import arm, columns, tiny

pytestmark = pytest.mark.slow
WITH_I8MM, WITHOUT = "armv8.6", "cortex-a76"
INT8 = Deployment(backend="mnn")


@pytest.fixture(scope="module")
def arm_mnn(tmp_path_factory):
    return arm.prepare(tmp_path_factory.mktemp("arm"))


def logits_on(arm_mnn, folder, model, *cpus):
    """Return the logits of a network's MNN file on each CPU."""
    work = tiny.write_tiny(folder, model)
    file = work.request.out / Mnn().convert(work.for_(INT8)).file
    batch = tiny.images(4, seed=2)
    return [arm_mnn.logits(file, batch, cpu=cpu, classes=tiny.CLASSES) for cpu in cpus]


@pytest.mark.parametrize("layer", columns.LAYERS)
def test_layer_of_one_pixel_is_the_same_with_i8mm(arm_mnn, tmp_path, layer):
    found = logits_on(arm_mnn, tmp_path / "net", columns.network(layer), WITH_I8MM, WITHOUT)

    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize("pixels", [2, 3, 5, 7, 13, 49])
@pytest.mark.parametrize("channels", [10, 13, 20])
def test_map_is_the_same_with_i8mm(arm_mnn, tmp_path, pixels, channels):
    found = logits_on(arm_mnn, tmp_path / "net", columns.chain(pixels, channels), WITH_I8MM, WITHOUT)

    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize("cpu", ["cortex-a53", WITHOUT, WITH_I8MM])
def test_logits_are_those_of_this_machine(arm_mnn, tmp_path, cpu):
    work = tiny.write_tiny(tmp_path / "net")
    facts = Mnn().convert(work.for_(INT8))
    file, batch = work.request.out / facts.file, tiny.images(16, seed=2)

    found = arm_mnn.logits(file, batch, cpu=cpu, classes=tiny.CLASSES)

    here = Mnn().open(file, facts, kernels="default", threads=1)
    np.testing.assert_array_equal(found, tiny.session_logits(here, batch))


@pytest.mark.parametrize("network", [tiny.qdq_model(), columns.chain(49, 12)], ids=["linear", "map"])
def test_layer_that_is_not_widened_is_wrong_with_i8mm(arm_mnn, tmp_path, monkeypatch, network):
    """A failure says that a new version of MNN mended it: `_mnn_columns` can go."""
    monkeypatch.setattr(_mnn_rewrite, "widen", lambda model, layers: (model, tuple(layers)))

    with_i8mm, without = logits_on(arm_mnn, tmp_path / "net", network, WITH_I8MM, WITHOUT)

    assert not np.array_equal(with_i8mm, without)
