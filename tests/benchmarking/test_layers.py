"""What each layer costs: runtimes' own profiles of real models on this host, and counts on the emulator."""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilekd.benchmarking import layers
from mobilekd.benchmarking.layer_names import LayerNames, read_names
from mobilekd.benchmarking.layers import Operation
from mobilekd.benchmarking.running import Running, prepare
from mobilekd.device import runtimes
from mobilekd.device.runner import Job
from mobilekd.errors import DeviceError
from mobilekd.measurement import Measured
from mobilekd.plugins import BACKENDS
from mobilekd.profile import Deployment
from mobilekd.transports.local import Local
from mobilekd.transports.qemu import Qemu
from tests.backends import tiny
from tests.device.tools import need
from tests.toys import Silent

BACKENDS_WITH_A_RUNTIME = {
    "tflite": layers.read_lines,
    "onnxruntime": layers.read_ort_trace,
    "mnn": layers.read_lines,
}
on_x86_64 = pytest.mark.skipif(os.uname().machine != "x86_64", reason="needs an x86_64 host")


def _one_heavy_layer():
    """Return image - light (1x1, 8) - heavy (3x3, 512: 2.4 M of 2.4 M multiplications) - mean - classifier."""
    net = tiny._Builder(0)
    image = net.rounded("image", 2 / 127)
    light = net.rounded(net.layer("Conv", "light", image, (8, 3, 1, 1)), 2 / 127)
    heavy = net.rounded(net.layer("Conv", "heavy", light, (512, 8, 3, 3), pads=[1, 1, 1, 1]), 2 / 127)
    pooled = net.rounded(net.node("GlobalAveragePool", "pooled", [heavy]), 1 / 127)
    flat = net.rounded(net.node("Flatten", "flat", [pooled]), 1 / 127)
    net.rounded(net.layer("Gemm", "classifier", flat, (tiny.CLASSES, 512), transB=1), 0.6 / 127, real="logits")
    return net.model()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Measured]:
    found = {}
    for backend in BACKENDS_WITH_A_RUNTIME:
        converter = BACKENDS.load(backend)()
        folder = tmp_path_factory.mktemp("models") / backend
        request = tiny.write_tiny(folder, _one_heavy_layer()).for_(Deployment(backend=backend))
        facts = converter.convert(request)
        found[backend] = Measured(backend, request.out / facts.file, facts)
    return found


@pytest.fixture(scope="module")
def names(models: Mapping[str, Measured]) -> LayerNames:
    return read_names(list(models.values()))


@pytest.fixture(scope="module")
def on_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    need("cc")
    state, scratch = tmp_path_factory.mktemp("state"), tmp_path_factory.mktemp("scratch")
    with Local(state) as host:
        yield prepare(host, runtimes.backends(), state=state, scratch=scratch, threads=1, cores=(), progress=Silent())


@on_x86_64
@pytest.mark.parametrize("backend", BACKENDS_WITH_A_RUNTIME)
def test_layer_with_most_of_the_work_comes_first_under_its_trained_name(backend, models, names, on_host):
    found, _ = layers.layers_of(on_host, models[backend], on_host.job(models[backend], tiny.images(1)), names)

    assert found[0].name == "heavy"
    assert found[0].share > 0.5


@on_x86_64
@pytest.mark.parametrize("backend", BACKENDS_WITH_A_RUNTIME)
def test_shares_of_all_layers_add_up_to_one(backend, models, names, on_host):
    found, _ = layers.layers_of(on_host, models[backend], on_host.job(models[backend], tiny.images(1)), names)

    assert sum(one.share for one in found) == pytest.approx(1)


@on_x86_64
@pytest.mark.parametrize("backend", BACKENDS_WITH_A_RUNTIME)
def test_times_of_layers_fill_the_run_that_they_are_parts_of(backend, models, on_host, tmp_path):
    job = replace(on_host.job(models[backend], tiny.images(1)), warmup_runs=5, timed_runs=40, profile_out="layers")

    latencies_ms = on_host.run(job).latencies_ms
    on_host.transport.pull("layers", tmp_path / "layers")
    runs = BACKENDS_WITH_A_RUNTIME[backend]((tmp_path / "layers").read_text(encoding="utf-8"), len(latencies_ms))

    filled = [sum(one.cost for one in run) / run_ms for run, run_ms in zip(runs, latencies_ms, strict=True)]
    # The profiler itself runs between two layers: of a network as small as this it is the larger part.
    assert 0.1 < max(filled) < 1.01


@on_x86_64
def test_layers_of_the_whole_network_are_there_by_name(models, names, on_host):
    for backend in ("tflite", "onnxruntime"):
        found, _ = layers.layers_of(on_host, models[backend], on_host.job(models[backend], tiny.images(1)), names)

        assert {"light", "heavy", "classifier"} <= {one.name for one in found}


@pytest.fixture(scope="module")
def on_emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    need("qemu-aarch64", "aarch64-linux-gnu-gcc")
    state, scratch = tmp_path_factory.mktemp("state"), tmp_path_factory.mktemp("scratch")
    with Qemu(state, "cortex-a76") as device:
        yield prepare(device, runtimes.backends(), state=state, scratch=scratch, threads=1, cores=(), progress=Silent())


@pytest.mark.parametrize("backend", BACKENDS_WITH_A_RUNTIME)
def test_emulator_counts_the_instructions_of_each_layer(backend, models, names, on_emulator):
    job = on_emulator.job(models[backend], tiny.images(1))
    _, counts = on_emulator.count(replace(job, warmup_runs=3, timed_runs=1))

    found, _ = layers.layers_of(on_emulator, models[backend], job, names)

    assert found[0].name == "heavy"
    assert {one.ms for one in found} == {None}
    assert sum(one.instructions for one in found) == pytest.approx(counts[0].total, rel=0.1)


@pytest.mark.parametrize("backend", BACKENDS_WITH_A_RUNTIME)
def test_counts_of_layers_repeat(backend, models, names, on_emulator):
    job = on_emulator.job(models[backend], tiny.images(1))

    first, second = (layers.layers_of(on_emulator, models[backend], job, names)[0] for _ in range(2))

    assert [one.name for one in first[:2]] == [one.name for one in second[:2]]
    assert first[0].instructions == pytest.approx(second[0].instructions, rel=0.005)


class Timeless(Local):
    """An emulated machine whose runs are not counted by region."""

    latency_kind = "guest_instructions"


def test_emulated_time_of_a_layer_is_never_shown(models, names, on_host, tmp_path):
    running = replace(on_host, transport=Timeless(tmp_path))

    found, why = layers.layers_of(running, models["tflite"], Job("tflite", "m", ("in",), (), 1), names)

    assert (found, "its time is none" in why) == ([], True)


@given(st.lists(st.floats(0, 10), min_size=1, max_size=30), st.floats(0, 100))
def test_times_less_the_profilers_part_fill_the_run_and_no_more(times, run_ms):
    left = layers.without_profiler(times, run_ms)

    assert sum(left) == pytest.approx(min(sum(times), run_ms), abs=1e-6)


@given(st.lists(st.floats(0, 10), min_size=2, max_size=30), st.floats(0, 100))
def test_the_profilers_part_leaves_the_order_of_layers_as_it_is(times, run_ms):
    left = np.array(layers.without_profiler(times, run_ms))

    assert (np.diff(left[np.argsort(times)]) >= 0).all()


def test_one_run_that_was_disturbed_moves_no_layer():
    runs = [[Operation("a", "Conv", 1.0), Operation("b", "Conv", 2.0)] for _ in range(8)]
    runs[3] = [Operation("a", "Conv", 900.0), Operation("b", "Conv", 2.0)]

    assert [(one.name, one.ms) for one in layers.costs(runs, 10.0)] == [("b", 2.0), ("a", 1.0)]


@pytest.mark.parametrize(
    ("second", "told"),
    [
        ([Operation("b", "Conv", 1.0)], "run 1 and run 2 have 'Conv a' and 'Conv b' at place 0"),
        ([Operation("a", "Conv", 1.0), Operation("b", "Add", 1.0)], "run 1 and run 2 have 1 and 2 of them"),
        ([], "run 1 and run 2 have 1 and 0 of them"),
    ],
)
def test_runs_with_other_operators_are_refused(second, told):
    with pytest.raises(DeviceError, match=f"differ from run to run: {told}"):
        layers.costs([[Operation("a", "Conv", 1.0)], second], 1.0)


def test_only_the_timed_runs_of_a_trace_are_read():
    def events(at):
        node = {"cat": "Node", "args": {"op_name": "Conv"}, "name": f"n{at}_token_3_kernel_time", "ts": at, "dur": 7}
        return [node, {"cat": "Session", "name": "model_run", "ts": at, "dur": 10}]

    trace = json.dumps([event for at in (100, 200, 300) for event in events(at)])

    found = layers.read_ort_trace(trace, 2)

    assert found == [[Operation("n200", "Conv", 0.007)], [Operation("n300", "Conv", 0.007)]]


def test_an_operator_belongs_to_the_run_that_it_came_before_however_coarse_the_clock_is():
    def events(at):
        # The clock stood still from the end of the last operator to the next run.
        node = {"cat": "Node", "args": {"op_name": "Conv"}, "name": "n_kernel_time", "ts": at + 5, "dur": 6}
        last = {"cat": "Node", "args": {"op_name": "Add"}, "name": "m_kernel_time", "ts": at + 10, "dur": 0}
        return [node, last, {"cat": "Session", "name": "model_run", "ts": at, "dur": 10}]

    trace = json.dumps([event for at in (0, 10, 20) for event in events(at)])

    found = layers.read_ort_trace(trace, 3)

    assert found == [[Operation("n", "Conv", 0.006), Operation("m", "Add", 0.0)]] * 3


def test_trace_that_lacks_runs_is_refused():
    with pytest.raises(DeviceError, match="0 of 2 runs"):
        layers.read_ort_trace("[]", 2)


def test_lines_that_are_cut_are_refused():
    line = '{"name":"a","operator":"Conv","ns":1}\n'

    with pytest.raises(DeviceError, match="3 layers, which are not those of 2 equal runs"):
        layers.read_lines(3 * line, 2)


def test_kernels_keep_their_place_where_the_file_has_other_layers(models):
    names = LayerNames({}, {models["tflite"].model: ["only one"]})
    run = [Operation("", "Convolution (NHWC, QC8) IGEMM", 1.0), Operation("", "Fully Connected (NC) GEMM", 1.0)]

    assert [one.name for one in layers.named([run], models["tflite"], names)[0]] == ["operator 0", "operator 1"]
