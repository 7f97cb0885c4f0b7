"""`mobilekd bench` in a real Chromium: what a bundle's models cost there, and that others than ONNX say why not."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from mobilekd.bench import measure
from mobilekd.cache import Cache
from mobilekd.config import load_profile, parse_override
from mobilekd.device import web_runtime
from mobilekd.device_doctor import examine
from mobilekd.device_tools import remedy
from mobilekd.errors import MissingToolError
from mobilekd.release.reference import HOST
from mobilekd.web_setup import setup
from tests.benchmarking.small import RealWorkshop
from tests.device.models import Model
from tests.device.tools import need
from tests.release.workshop import Model as Entry
from tests.toys import Silent


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the tests' own, since its lock is; the runtime in it is the user's, downloaded there once."""
    need("chromium")
    users, state = Cache.default_root() / "devices", tmp_path_factory.mktemp("devices")
    try:
        web_runtime.kit(users, lambda _: None)
    except MissingToolError as cause:
        pytest.skip(f"{cause.message} ({cause.hint})")
    (state / "web").symlink_to(users / "web")
    return state


@pytest.fixture(scope="module")
def document(kept: Path, tiny: Mapping[str, Model], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Bench a bundle of two models in the page, with layers; its data set is in no cache."""
    root = tmp_path_factory.mktemp("page")
    entries = (Entry("onnxruntime", "int8", ".onnx"), Entry("mnn", "int8", ".mnn"))
    bundle = RealWorkshop(root, models=entries, drift_images=0, tiny=tiny).bundle(HOST) / "bundle.zip"  # type: ignore[arg-type]
    wanted = load_profile("web", [parse_override("profile.benchmark.timed_runs=10")])
    return measure([bundle], wanted, Cache(root / "cache"), kept, Silent(), layers=True)


@pytest.mark.slow
def test_a_page_is_the_target_and_says_what_ran_in_it(document: dict[str, Any]) -> None:
    facts = document["device"]
    assert (document["place"], document["on_target"]) == ("device", True)
    assert (facts["runtime"], facts["machine"]) == (web_runtime.pin().told, "wasm32")


@pytest.mark.slow
def test_an_onnx_model_is_timed_and_answers_as_on_this_host(document: dict[str, Any]) -> None:
    row = document["models"][0]
    assert (row["measured_by"], row["latency_kind"], row["threads"]) == ("browser", "wall", 1)
    assert row["ci95_ms"][0] <= row["p50_ms"] <= row["ci95_ms"][1] <= row["p99_ms"]
    assert (row["on_device"]["images"], row["on_device"]["exact_images"], row["peak_memory_bytes"]) == (1, 1, None)


@pytest.mark.slow
def test_a_model_that_is_faster_than_the_clock_can_tell_says_so(document: dict[str, Any]) -> None:
    said = [one for one in document["worries"] if one.startswith("onnxruntime-int8: up to ")]
    assert [one.partition("since ")[2] for one in said] == [
        "the clock moves in steps of 5 µs: all percentiles are of their means"
    ]


@pytest.mark.slow
def test_layers_have_their_time_by_the_trained_network_s_names(document: dict[str, Any]) -> None:
    layers = document["models"][0]["layers"]
    assert {"stem", "project"} <= {one["name"] for one in layers if one["operator"] == "QLinearConv"}
    assert sum(one["share"] for one in layers) == pytest.approx(1)


@pytest.mark.slow
def test_a_model_that_is_no_onnx_is_not_run_and_says_why(document: dict[str, Any]) -> None:
    row = document["models"][1]
    assert (row["latency_kind"], row["note"]) == (None, "not run: a browser takes ONNX models only")


def test_setup_lets_a_page_load_the_runtime(kept: Path) -> None:
    steps = setup(load_profile("web"), kept, Silent())
    assert [step.state for step in steps] == ["checked", "was there", "checked"]
    assert steps[-1].detail == f"a page loads {web_runtime.pin().told}: wasm32 with simd, threads"


@pytest.mark.usefixtures("no_programs")
def test_the_doctor_names_what_a_page_lacks_and_one_command_for_it(tmp_path: Path) -> None:
    checks = examine(load_profile("web"), tmp_path)
    assert [(one.name, one.is_ok, one.is_needed) for one in checks] == [
        ("browser", False, True),
        (f"onnxruntime: {web_runtime.pin().told}", False, False),
        ("npm", False, True),
    ]
    assert remedy(one for one in checks if one.is_needed) == (
        "apt-get install --yes --no-install-recommends chromium npm"
    )
