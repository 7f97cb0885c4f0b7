import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilekd.device import runner
from mobilekd.errors import DeviceError
from mobilekd.transport import Completed

JOB = runner.Job("tflite", "m.tflite", ("in",), ("out",), 4, warmup_runs=1, timed_runs=2)
ANSWER = {
    "ok": True,
    "protocol": 1,
    "backend": "litert",
    "machine": "aarch64",
    "load_us": 1500,
    "in_bytes": [192],
    "out_bytes": [10],
    "samples": 4,
    "threads": 1,
    "cpu_us": 30,
    "rss_kb": [100, 200],
    "lat_ns": [1_000_000, 2_000_000],
}


def completed(answer, code=0, stderr="", before=""):
    text = answer if isinstance(answer, str) else json.dumps(answer)
    return Completed(code, f"{before}{text}\n", stderr)


def test_argv_names_everything_that_the_job_asks_for():
    job = runner.Job("mnn", "m", ("a", "b"), ("c",), 4, 1, 2, threads=3, cores=(4, 5), limit_ms=60_000, time_sample=1)

    assert " ".join(job.argv(("libgomp-1.so", "libmnn.so"), runner.CAPSULE)) == (
        "./ld-linux-aarch64.so.1 --library-path . ./mkdrun --backend mnn --library ./libgomp-1.so --library ./libmnn.so"
        " --model m --in a --in b --out c --warmup 1 --runs 2 --threads 3 --cores 4,5 --limit-ms 60000 --time-sample 1"
    )


def test_outcome_is_in_milliseconds_and_bytes():
    found = runner.outcome(JOB, completed(ANSWER, before="a line of a runtime\n"))

    assert (found.load_ms, found.cpu_ms, found.latencies_ms) == (1.5, 0.03, (1.0, 2.0))
    assert found.memory_bytes == (102_400, 204_800)


def test_memory_that_is_not_told_is_none():
    assert runner.outcome(JOB, completed(ANSWER | {"rss_kb": []})).memory_bytes is None


def test_a_coarse_clock_tells_its_step_and_the_runs_that_share_a_reading():
    found = runner.outcome(JOB, completed(ANSWER | {"clock_ns": 5000, "inferences": 8}))

    assert (found.clock_ms, found.inferences) == (0.005, 8)


def test_a_twin_of_mkdrun_is_told_by_its_own_name():
    with pytest.raises(DeviceError, match=r"m\.tflite \(tflite\): browser ended with exit code 1 without an answer"):
        runner.outcome(JOB, Completed(1, "", ""), "browser")


@given(cut=st.integers(0, len(json.dumps(ANSWER)) - 1))
def test_answer_cut_anywhere_is_no_outcome(cut):
    with pytest.raises(DeviceError, match="the run is incomplete"):
        runner.outcome(JOB, completed(json.dumps(ANSWER)[:cut]))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"samples": 3}, "ran 3 of 4 samples"),
        ({"lat_ns": [1]}, "timed 1 of 2 runs"),
        ({"lat_ns": [1, 2, 3]}, "timed 3 of 2 runs"),
        ({"protocol": 2}, "speaks protocol 2"),
        ({"backend": "mnn"}, "answered for another run"),
        ({"rss_kb": [1]}, "answered for another run"),
        ({"lat_ns": ["1", "2"]}, "cut or wrong"),
        ({"new": 1}, "cut or wrong"),
    ],
)
def test_answer_that_is_not_what_was_asked_is_no_outcome(change, says):
    with pytest.raises(DeviceError, match=says):
        runner.outcome(JOB, completed(ANSWER | change))


def test_more_runs_than_asked_are_right_with_a_time_limit():
    job = runner.Job("tflite", "m.tflite", ("in",), ("out",), 4, timed_runs=2, limit_ms=10)

    assert len(runner.outcome(job, completed(ANSWER | {"lat_ns": [1, 2, 3]})).latencies_ms) == 3


def test_refusal_gives_stage_reason_and_the_last_lines_of_stderr():
    refusal = {"ok": False, "protocol": 1, "stage": "load", "error": "status 3"}
    stderr = "\n".join(f"line {number}" for number in range(20))

    with pytest.raises(DeviceError) as caught:
        runner.outcome(JOB, completed(refusal, 4, stderr))

    assert caught.value.message.startswith("m.tflite (tflite): mkdrun could not load the model: status 3")
    assert re.findall(r"line \d+", caught.value.message) == [f"line {number}" for number in range(12, 20)]


@pytest.mark.parametrize(("code", "says"), [(139, "was ended by SIGSEGV"), (132, "SIGILL"), (127, "exit code 127")])
def test_death_without_an_answer_names_how(code, says):
    with pytest.raises(DeviceError, match=says):
        runner.outcome(JOB, Completed(code, "", "gone\n"))


def test_answer_of_a_program_that_then_died_is_no_outcome():
    with pytest.raises(DeviceError, match="ended with exit code 139 after its answer"):
        runner.outcome(JOB, completed(ANSWER, 139))


def test_library_names_are_the_needs_then_the_runtime():
    names = ("mkdrun", "libLiteRt.so", "libgomp-d22c30c5.so.1.0.0", "libmnn.so")

    assert runner.library_names("mnn", names) == ("libgomp-d22c30c5.so.1.0.0", "libmnn.so")
    assert runner.library_names("tflite", names) == ("libLiteRt.so",)
