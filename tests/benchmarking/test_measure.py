"""Real int8 models on the real emulator and on this host: what latency.json says of them."""

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mobilekd.benchmarking.measure import Bench, Task, with_ratios
from mobilekd.benchmarking.place import Place, choose
from mobilekd.errors import ConfigError, DeviceError
from mobilekd.measurement import Measured
from mobilekd.profile import BenchmarkSettings, Profile, Target
from tests.backends.tiny import images
from tests.benchmarking import small
from tests.device.models import Model
from tests.toys import Silent

Row = dict[str, Any]
SAMPLES = 12
LABELS = np.arange(SAMPLES, dtype=np.int64) % 10
EMULATED = small.profile(place="emulator", cpu=small.CPU)
RUN = {"verdict", "verdict_reason", "threads", "load_ms", "peak_memory_bytes", "runtime_version"}
HEAD = {
    "deployment",
    "backend",
    "precision",
    "ships",
    "int8_speedup",
    "ran_on",
    "on_target",
    "latency_kind",
    "measured_by",
}


def measured(model: Model, name: str = "", **changed: object) -> Measured:
    facts = replace(model.facts, **changed)  # type: ignore[arg-type]
    return Measured(name or facts.name, model.file, facts)


def measure(profile: Profile, state: Path, scratch: Path, models: Sequence[Measured]) -> Row:
    scratch.mkdir(exist_ok=True)
    bench = Bench(profile, choose(profile), state, scratch, Silent())
    return bench.measure(Task(models, images(SAMPLES), LABELS))


def by_name(document: Row) -> Mapping[str, Row]:
    return {row["deployment"]: row for row in document["rows"]}


@pytest.fixture(scope="module")
def emulated(tiny: Mapping[str, Model], devices: Path, tmp_path_factory: pytest.TempPathFactory) -> Row:
    """Measure the three runtimes, a float baseline's stand-in, and two models that can't run there."""
    models = [
        *(measured(model) for model in tiny.values()),
        measured(tiny["onnxruntime"], "as-fp32", deployment=deployment("onnxruntime", "fp32")),
        measured(tiny["onnxruntime"], "tensorrt-int8", deployment=deployment("tensorrt", "int8")),
        measured(tiny["tflite"], "no-gpu", runnable=False, note="built, not run: no GPU on this host"),
    ]
    return measure(EMULATED, devices, tmp_path_factory.mktemp("emulated"), models)


def deployment(backend: str, precision: str) -> dict[str, object]:
    return {"backend": backend, "precision": precision, "io": "float32", "ships": precision == "int8"}


@pytest.fixture(scope="module")
def timed(tiny: Mapping[str, Model], host_state: Path, tmp_path_factory: pytest.TempPathFactory) -> Row:
    models = [measured(tiny["tflite"]), measured(tiny["onnxruntime"])]
    return measure(small.profile(place="host"), host_state, tmp_path_factory.mktemp("timed"), models)


def test_int8_answers_of_tflite_are_the_hosts_to_the_bit(emulated: Row) -> None:
    found = by_name(emulated)["tflite-int8-int8io"]["on_device"]
    assert (found["images"], found["exact_images"], found["max_difference"]) == (SAMPLES, SAMPLES, 0.0)


@pytest.mark.parametrize("name", ["tflite-int8-int8io", "onnxruntime-int8", "mnn-int8"])
def test_every_runtime_gives_the_hosts_answers_on_the_emulator(emulated: Row, name: str) -> None:
    found = by_name(emulated)[name]["on_device"]
    assert (found["same_answers"], found["top1"]) == (SAMPLES, found["host_top1"])


def test_a_float_model_answers_a_few_images_only(emulated: Row) -> None:
    assert by_name(emulated)["as-fp32"]["on_device"]["images"] == 8


def test_an_emulator_gives_counts_and_never_a_time(emulated: Row) -> None:
    row = by_name(emulated)["tflite-int8-int8io"]
    assert row.keys() == HEAD | {"guest_instructions", "peak_memory_bytes", "runtime_version", "threads", "on_device"}
    assert (row["latency_kind"], row["threads"], emulated["samples_ms"]) == ("guest_instructions", 1, {})


def test_classes_of_instructions_are_parts_of_the_total(emulated: Row) -> None:
    counted = by_name(emulated)["tflite-int8-int8io"]["guest_instructions"]
    assert counted["classes"].keys() == {"loads", "stores", "simd", "dot_product", "i8mm", "branches"}
    assert 0 < sum(counted["classes"].values()) < counted["total"]
    assert counted["smallest"] <= counted["total"] <= counted["largest"]


def test_a_cpu_with_dot_products_uses_them_and_has_no_i8mm(emulated: Row) -> None:
    classes = by_name(emulated)["tflite-int8-int8io"]["guest_instructions"]["classes"]
    assert (classes["dot_product"] > 0, classes["i8mm"]) == (True, 0)


def test_instructions_of_tflite_are_equal_in_another_measurement(
    emulated: Row, tiny: Mapping[str, Model], devices: Path, tmp_path: Path
) -> None:
    again = measure(EMULATED, devices, tmp_path / "again", [measured(tiny["tflite"])])
    assert (
        by_name(again)["tflite-int8-int8io"]["guest_instructions"]
        == by_name(emulated)["tflite-int8-int8io"]["guest_instructions"]
    )


def test_rows_keep_the_order_of_the_models(emulated: Row) -> None:
    assert [row["deployment"] for row in emulated["rows"]] == [
        "tflite-int8-int8io", "onnxruntime-int8", "mnn-int8", "as-fp32", "tensorrt-int8", "no-gpu"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "note"),
    [
        ("tensorrt-int8", "not measured on the emulator: mkdrun has no tensorrt"),
        ("no-gpu", "built, not run: no GPU on this host"),
    ],
)
def test_a_model_that_cant_run_there_has_a_row_that_says_why(emulated: Row, name: str, note: str) -> None:
    row = by_name(emulated)[name]
    assert (row["latency_kind"], row["note"], row["int8_speedup"]) == (None, note, None)


def test_the_ratio_to_fp32_is_that_of_the_instructions(emulated: Row) -> None:
    rows = by_name(emulated)
    totals = [rows[name]["guest_instructions"]["total"] for name in ("as-fp32", "onnxruntime-int8")]
    assert rows["onnxruntime-int8"]["int8_speedup"] == totals[0] / totals[1]
    assert rows["tflite-int8-int8io"]["int8_speedup"] is None


def test_the_document_names_the_place_and_the_device(emulated: Row) -> None:
    assert (emulated["place"], emulated["ran_on"], emulated["on_target"]) == ("emulator", "emulated cortex-a76", False)
    assert emulated["device"]["name"].startswith("emulated cortex-a76 (qemu ")
    assert "asimddp" in emulated["device"]["features"]


def test_the_document_is_plain_json(emulated: Row, timed: Row) -> None:
    assert json.loads(json.dumps([emulated, timed], allow_nan=False)) == [emulated, timed]


def test_a_host_gives_times_with_a_verdict(timed: Row) -> None:
    row = by_name(timed)["tflite-int8-int8io"]
    wall = {"p50_ms", "p90_ms", "p95_ms", "p99_ms", "ci95_ms", "timed_runs", "warmup_runs", "drift"}
    assert row.keys() == HEAD | wall | RUN
    assert (row["latency_kind"], 0 < row["p50_ms"] <= row["p99_ms"]) == ("wall", True)


def test_samples_of_the_rounds_are_kept_for_both_models(timed: Row) -> None:
    blocks = timed["samples_ms"]
    assert blocks.keys() == by_name(timed).keys()
    assert [len(blocks[name]) for name in blocks] == [30, 30]
    assert sum(map(len, blocks["onnxruntime-int8"])) == by_name(timed)["onnxruntime-int8"]["timed_runs"]


def test_a_host_that_is_not_the_target_says_so(timed: Row) -> None:
    assert (timed["place"], timed["on_target"]) == ("host", False)
    assert timed["ran_on"].endswith(", not the target")


def test_cpus_of_the_device_are_not_asked_of_its_emulator(
    tiny: Mapping[str, Model], devices: Path, tmp_path: Path
) -> None:
    pinned = small.profile(benchmark=BenchmarkSettings(cores=(1000,)), place="emulator", cpu=small.CPU)
    document = measure(pinned, devices, tmp_path / "scratch", [measured(tiny["tflite"])])
    assert document["rows"][0]["guest_instructions"]["runs"] == 3


def test_a_cpu_that_the_host_lacks_is_refused_with_those_it_has(
    tiny: Mapping[str, Model], host_state: Path, tmp_path: Path
) -> None:
    pinned = small.profile(benchmark=BenchmarkSettings(timed_runs=10, cores=(1000,)), place="host")
    with pytest.raises(ConfigError, match="names CPU 1000, which this host has not"):
        measure(pinned, host_state, tmp_path / "scratch", [measured(tiny["tflite"])])


def test_a_device_of_another_machine_is_not_measured_as_the_target(
    tiny: Mapping[str, Model], host_state: Path, tmp_path: Path
) -> None:
    other = "aarch64" if platform.machine() == "x86_64" else "x86_64"
    board = small.profile(Target(os="linux", abi=other))
    place = Place("device", "local", "board", on_target=True)
    with pytest.raises(DeviceError, match=f"is a machine '{platform.machine()}', and profile small is for {other}"):
        Bench(board, place, host_state, tmp_path, Silent()).measure(Task([measured(tiny["tflite"])], images(1), None))


def test_the_device_is_read_before_the_warm_up_and_after_each_of_the_15_rounds(timed: Row) -> None:
    assert len(timed["states"]) == 17
    assert timed["states"][0].keys() == {"governors", "fastest_khz", "hottest_celsius", "load", "online"}


def test_the_runtime_tells_its_version_on_the_emulator_and_the_host(emulated: Row, timed: Row) -> None:
    told = [by_name(one)["onnxruntime-int8"]["runtime_version"] for one in (emulated, timed)]
    assert [version.count(".") for version in told] == [2, 2]


def test_without_a_float_model_there_is_no_ratio() -> None:
    row = {"backend": "tflite", "precision": "int8", "p50_ms": 2.0}
    assert with_ratios([row])[0]["int8_speedup"] is None


def test_a_ratio_of_times_is_that_of_the_medians() -> None:
    rows = [{"backend": "tflite", "precision": kind, "p50_ms": ms} for kind, ms in (("fp32", 6.0), ("int8", 2.0))]
    assert [row["int8_speedup"] for row in with_ratios(rows)] == [None, 3.0]
