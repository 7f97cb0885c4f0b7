"""Which runner is put on a device: mkdrun, or its twin in Python where the profile or the machine asks for it."""

import dataclasses
import os
import sys
from pathlib import Path

import pytest

from mobilekd.benchmarking.running import prepare
from mobilekd.errors import MissingToolError
from mobilekd.measurement import Measured
from mobilekd.transports.local import Local
from tests.backends import tiny
from tests.device import models
from tests.device.tools import need
from tests.toys import Silent


class Armv7(Local):
    """This host, under the name of a machine that nothing is built for."""

    def facts(self):
        return dataclasses.replace(super().facts(), machine="armv7l")


@pytest.fixture
def python_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the device's python3 be the one with the packages."""
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")


@pytest.fixture
def no_python(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))


@pytest.fixture
def device(request, tmp_path):
    with request.param(tmp_path / "state") as found:
        yield found


def put(device, tmp_path, choice="auto"):
    state = tmp_path / "state"
    return prepare(
        device, ["mnn"], state=state, scratch=tmp_path, threads=1, cores=(), progress=Silent(), choice=choice
    )


@pytest.mark.parametrize("device", [Local], indirect=True)
def test_python_measures_and_answers_where_the_profile_asks_for_it(device, tmp_path, python_here):
    made = models.make("mnn", tmp_path / "model")
    model = Measured("mnn-int8", made.file, made.facts)

    running = put(device, tmp_path, "python")

    assert running.measured_by == "python"
    assert (running.answers(model, running.job(model, tiny.images(models.SAMPLES))) == made.logits).all()


@pytest.mark.parametrize("device", [Armv7], indirect=True)
def test_python_takes_the_place_of_a_runner_that_can_not_be_built(device, tmp_path, python_here):
    assert put(device, tmp_path).measured_by == "python"


@pytest.mark.parametrize("device", [Armv7], indirect=True)
def test_native_runner_that_was_asked_for_is_never_replaced(device, tmp_path, python_here):
    with pytest.raises(MissingToolError, match="no compiler is known for armv7l"):
        put(device, tmp_path, "native")


@pytest.mark.parametrize("device", [Armv7], indirect=True)
def test_device_without_either_is_told_both(device, tmp_path, no_python):
    with pytest.raises(MissingToolError, match=r"armv7l; and .* can't run mnn by Python"):
        put(device, tmp_path)


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="needs an x86_64 host")
@pytest.mark.parametrize("device", [Local], indirect=True)
def test_mkdrun_runs_the_models_where_nothing_is_said(device, tmp_path):
    need("cc")
    assert put(device, tmp_path).measured_by == "mkdrun"
