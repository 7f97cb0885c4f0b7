"""The three runtimes on emulated CPUs, against the host's own."""

import numpy as np
import pytest

from mobilekd.device import runner
from mobilekd.errors import DeviceError
from mobilekd.transports.qemu import Qemu
from tests.device.models import SAMPLES
from tests.device.tools import need

TIMEOUT_S = 120.0
EXACT = [
    (backend, cpu)
    for backend in ("tflite", "onnxruntime", "mnn")
    for cpu in ("cortex-a53", "cortex-a72", "cortex-a76", "armv8.6")
]


@pytest.fixture(autouse=True)
def _tools():
    need("qemu-aarch64")


@pytest.fixture
def device(state, request):
    with Qemu(state, getattr(request, "param", "cortex-a76")) as one:
        yield one


def job(model, *, outputs=("out",), warmup_runs=0, timed_runs=0):
    return runner.Job(model.backend, "model", ("in",), outputs, SAMPLES, warmup_runs, timed_runs)


def pushed(device, kit, model):
    """Push a model with its runtime; return the names of the runtime's libraries."""
    names = runner.library_names(model.backend, tuple(kit))
    device.push({name: kit[name] for name in (runner.PROGRAM, *names)} | {"model": model.file, "in": model.inputs})
    return names


def counted(device, kit, model):
    names = pushed(device, kit, model)
    argv = job(model, outputs=(), warmup_runs=2, timed_runs=3).argv(names)
    done, counts = device.run_counted(argv, timeout_s=TIMEOUT_S)
    assert done.returncode == 0, done.stderr
    return counts


@pytest.mark.parametrize(("backend", "device"), EXACT, indirect=["device"])
def test_int8_outputs_are_the_hosts_to_the_bit(backend, device, arm_kit, small_models, tmp_path):
    model = small_models[backend]
    names = pushed(device, arm_kit, model)

    found = runner.run(device, job(model), job(model).argv(names), timeout_s=TIMEOUT_S)
    device.pull("out", tmp_path / "out")

    assert found.machine == "aarch64"
    np.testing.assert_array_equal(model.read(tmp_path / "out"), model.logits)


def test_the_glibc_capsule_computes_the_same(device, arm_kit, small_models, tmp_path):
    model = small_models["tflite"]
    names = pushed(device, arm_kit, model)
    device.push(runner.capsule_files())

    runner.run(device, job(model), job(model).argv(names, runner.CAPSULE), timeout_s=TIMEOUT_S)
    device.pull("out", tmp_path / "out")

    np.testing.assert_array_equal(model.read(tmp_path / "out"), model.logits)


def test_litert_takes_the_same_instructions_in_every_run_and_process(state, arm_kit, small_models):
    found = set()
    for _ in range(2):  # two processes are the point of the test
        with Qemu(state, "cortex-a76") as device:
            found |= set(counted(device, arm_kit, small_models["tflite"]))

    assert len(found) == 1


@pytest.mark.parametrize("backend", ["onnxruntime", "mnn"])
def test_median_run_repeats_within_a_thousandth(backend, state, arm_kit, small_models):
    medians = []
    for _ in range(2):
        with Qemu(state, "cortex-a76") as device:
            medians.append(np.median([one.total for one in counted(device, arm_kit, small_models[backend])]))

    assert max(medians) <= 1.001 * min(medians)


@pytest.mark.parametrize(
    ("device", "classes"),
    [("cortex-a53", ()), ("cortex-a76", ("dot_product",)), ("armv8.6", ("i8mm",))],
    indirect=["device"],
)
def test_int8_products_of_litert_are_those_the_cpu_has(device, classes, arm_kit, small_models):
    counts = counted(device, arm_kit, small_models["tflite"])[0]

    assert tuple(name for name in ("dot_product", "i8mm") if getattr(counts, name)) == classes


def test_garbled_model_is_a_device_error_with_the_runtimes_words(device, arm_kit, small_models, tmp_path):
    model = small_models["tflite"]
    names = pushed(device, arm_kit, model)
    (tmp_path / "garbled").write_bytes(b"no model at all" * 100)
    device.push({"model": tmp_path / "garbled"})

    with pytest.raises(DeviceError, match=r"model \(tflite\): mkdrun could not load the model: LiteRT"):
        runner.run(device, job(model), job(model).argv(names), timeout_s=TIMEOUT_S)


def test_run_past_its_time_is_ended(device, arm_kit, small_models):
    names = pushed(device, arm_kit, small_models["tflite"])
    endless = job(small_models["tflite"], timed_runs=10**9)

    with pytest.raises(DeviceError, match="ran past 2 s"):
        runner.run(device, endless, endless.argv(names), timeout_s=2)
