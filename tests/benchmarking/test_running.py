"""Jobs on the real emulator: what is pushed, what comes back, and what is left of one that dies."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mobilekd.backend import DeployedFacts
from mobilekd.backends.onnxruntime import Onnxruntime
from mobilekd.benchmarking.running import Running, has_runtime, prepare
from mobilekd.device.full_disk import refuse_full_disk
from mobilekd.errors import DeviceError, MissingToolError, StageError
from mobilekd.measurement import Measured
from mobilekd.transports.local import Local
from mobilekd.transports.qemu import Qemu
from tests.backends.tiny import images
from tests.benchmarking.small import CPU
from tests.device.models import SAMPLES, Model
from tests.toys import Silent


def running_on(transport: Qemu | Local, state: Path, scratch: Path) -> Running:
    scratch.mkdir()
    backends = ("tflite", "onnxruntime")
    return prepare(transport, backends, state=state, scratch=scratch, threads=1, cores=(), progress=Silent())


@pytest.fixture
def running(devices: Path, tmp_path: Path) -> Iterator[Running]:
    with Qemu(devices, CPU) as transport:
        yield running_on(transport, devices, tmp_path / "scratch")


def test_all_images_are_answered_as_on_the_host(running: Running, tiny: Mapping[str, Model]) -> None:
    model = Measured("tiny", tiny["tflite"].file, tiny["tflite"].facts)
    answers = running.answers(model, running.job(model, images(SAMPLES)))
    np.testing.assert_array_equal(answers, tiny["tflite"].logits)


def test_models_of_one_input_format_share_the_file_of_images(running: Running, tiny: Mapping[str, Model]) -> None:
    model = tiny["onnxruntime"]
    jobs = [running.job(Measured(name, model.file, model.facts), images(2)) for name in ("one", "two")]
    assert jobs[0].inputs == jobs[1].inputs
    assert jobs[0].model != jobs[1].model


def test_formats_of_int8_and_float_have_files_of_their_own(running: Running, tiny: Mapping[str, Model]) -> None:
    jobs = [running.job(Measured(name, one.file, one.facts), images(2)) for name, one in tiny.items()]
    assert jobs[0].inputs != jobs[1].inputs


def test_a_model_that_dies_is_named_and_leaves_no_folder(
    devices: Path, lone: Mapping[str, Path], tmp_path: Path
) -> None:
    model = Measured("the-dying-one", lone["dying"], Onnxruntime().describe(lone["dying"]))
    with Qemu(devices, CPU) as transport:
        work = transport._held.work
        running = running_on(transport, devices, tmp_path / "scratch")
        job = running.job(model, images(1))
        with pytest.raises(DeviceError, match=r"^the-dying-one \(onnxruntime\): mkdrun could not run the model"):
            running.answers(model, job)
        assert not (running.scratch / "out.bin").exists()
    assert not work.exists()


def test_a_host_counts_nothing(tiny: Mapping[str, Model], host_state: Path, tmp_path: Path) -> None:
    model = Measured("tiny", tiny["tflite"].file, tiny["tflite"].facts)
    with Local(host_state) as transport:
        running = running_on(transport, host_state, tmp_path / "scratch")
        with pytest.raises(DeviceError, match="counted on the emulator only") as caught:
            running.count(running.job(model, images(1)))
    assert "profile.device.place=emulator" in caught.value.hint


def facts_of(tiny: Mapping[str, Model], backend: str, *, runnable: bool) -> DeployedFacts:
    deployment = {**tiny["tflite"].facts.deployment, "backend": backend}
    return replace(tiny["tflite"].facts, deployment=deployment, runnable=runnable)


@pytest.mark.parametrize(
    ("backend", "runnable", "expected"),
    [("tflite", True, True), ("mnn", True, True), ("tensorrt", True, False), ("tflite", False, False)],
)
def test_models_with_a_runtime_for_devices_are_known(
    tiny: Mapping[str, Model], backend: str, *, runnable: bool, expected: bool
) -> None:
    facts = facts_of(tiny, backend, runnable=runnable)
    assert has_runtime(Measured("x", tiny["tflite"].file, facts)) is expected


def test_a_full_disk_is_no_reason_to_run_by_python(tmp_path: Path) -> None:
    said = MissingToolError("ai-edge-litert could not be downloaded: OSError: [Errno 28] No space left on device")
    with pytest.raises(StageError, match=f"bytes in {tmp_path}") as caught:
        refuse_full_disk(tmp_path, said)
    assert caught.value.code == "MKD-430"


def code_of_the_refusal(state: Path, said: str) -> str:
    try:
        refuse_full_disk(state, MissingToolError(said))
    except StageError as refusal:
        return refusal.code
    return ""


@pytest.mark.parametrize(
    ("said", "code"),
    [("OSError: [Errno 28] No space left on device", "MKD-430"), ("pip ended with exit code 1", "")],
)
def test_a_full_disk_is_told_from_another_lack(said: str, code: str, tmp_path: Path) -> None:
    assert code_of_the_refusal(tmp_path, said) == code
