"""A real Chromium with a page of ours: its answers against this host's, its facts, and how each of its ends is told."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mobilekd.backends.onnxruntime import Onnxruntime
from mobilekd.benchmarking.running import Running, prepare
from mobilekd.cache import Cache
from mobilekd.device import browsers, web_runtime
from mobilekd.errors import ConfigError, DeviceError, MissingToolError
from mobilekd.measurement import Measured
from mobilekd.transports.local import Local
from mobilekd.transports.web import BrowserFacts, Web
from tests.backends.tiny import images
from tests.benchmarking import small
from tests.device import models
from tests.device.tools import need
from tests.processes import command_lines, wait_until
from tests.toys import Silent

SAMPLES = 16


@pytest.fixture(scope="module")
def kit() -> Mapping[str, Path]:
    """The user's own folder keeps the runtime: it is downloaded there once."""
    need("chromium")
    try:
        return web_runtime.kit(Cache.default_root() / "devices", lambda _: None)
    except MissingToolError as cause:
        pytest.skip(f"{cause.message} ({cause.hint})")


@pytest.fixture(scope="module")
def page(kit: Mapping[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    with Web(tmp_path_factory.mktemp("state"), browsers.find_browser(), kit) as opened:
        yield opened


@pytest.fixture
def short_lived(kit: Mapping[str, Path], tmp_path: Path) -> Iterator[Web]:
    """A page of its own for a test that ends it."""
    with Web(tmp_path / "state", browsers.find_browser(), kit) as opened:
        yield opened


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> models.Model:
    return models.make("onnxruntime", tmp_path_factory.mktemp("tiny"))


def on(page: Web, scratch: Path) -> Running:
    return prepare(page, ["onnxruntime"], state=scratch, scratch=scratch, threads=1, cores=(), progress=Silent())


def lone(file: Path, name: str) -> Measured:
    return Measured(name, file, Onnxruntime().describe(file))


def renderers(page: Web) -> list[int]:
    """Return the processes of the browser that run pages."""
    found = subprocess.run(["ps", "-eo", "pid,pgid,args"], capture_output=True, text=True, check=True).stdout
    words = [line.split(maxsplit=2) for line in found.splitlines()]
    group = str(page._process.group)
    return [int(pid) for pid, of, argv in words if of == group and "--type=renderer" in argv]


def test_int8_answers_are_this_host_s_to_the_bit(page: Web, tiny: models.Model, tmp_path: Path) -> None:
    running = on(page, tmp_path)
    model = Measured("tiny", tiny.file, tiny.facts)
    np.testing.assert_array_equal(running.answers(model, running.job(model, images(SAMPLES))), tiny.logits)


def test_what_shares_a_reading_of_the_clock_lasts_a_hundred_of_its_steps(
    page: Web, tiny: models.Model, tmp_path: Path
) -> None:
    running = on(page, tmp_path)
    job = running.job(Measured("tiny", tiny.file, tiny.facts), images(1))
    found = running.run(replace(job, warmup_runs=3, timed_runs=7))
    assert (len(found.latencies_ms), found.memory_bytes, found.runtime_version) == (7, None, web_runtime.pin().version)
    assert found.inferences * min(found.latencies_ms) >= 99.9 * found.clock_ms > 0


def test_the_page_is_isolated_and_has_simd(page: Web) -> None:
    facts = page.facts()
    assert isinstance(facts, BrowserFacts)
    assert (facts.machine, facts.features, facts.is_cross_origin_isolated) == ("wasm32", ("simd", "threads"), True)
    assert facts.clock_us <= 100
    assert "Chrome/" in facts.user_agent


def test_a_model_that_the_runtime_refuses_is_named_with_its_reason(page: Web, tmp_path: Path) -> None:
    model = lone(small.write_wide(tmp_path / "wide.onnx"), "the-broken-one")
    job = on(page, tmp_path).job(model, images(1))
    (tmp_path / "wide.onnx").write_bytes(b"no model")
    page.push({job.model: tmp_path / "wide.onnx"})
    with pytest.raises(DeviceError, match=r"^the-broken-one \(onnxruntime\): browser could not load the model: .+"):
        on(page, tmp_path).run(job)


def test_a_model_whose_run_fails_is_named_and_the_page_goes_on(page: Web, tiny: models.Model, tmp_path: Path) -> None:
    running = on(page, tmp_path)
    dying = lone(small.write_dying(tmp_path / "dying.onnx"), "the-dying-one")
    with pytest.raises(DeviceError, match=r"^the-dying-one \(onnxruntime\): browser could not run the model"):
        running.run(running.job(dying, images(1)))
    assert running.run(running.job(Measured("tiny", tiny.file, tiny.facts), images(1))).machine == "wasm32"


def test_other_threads_than_the_first_run_s_are_refused(page: Web, tiny: models.Model, tmp_path: Path) -> None:
    running = on(page, tmp_path)
    job = running.job(Measured("tiny", tiny.file, tiny.facts), images(1))
    running.run(job)
    with pytest.raises(DeviceError, match="threads are those of the first run"):
        running.run(replace(job, threads=2))


def test_more_threads_than_the_browser_has_cores_are_refused(page: Web, tmp_path: Path) -> None:
    cores, given = page.facts().cores, {"state": tmp_path, "scratch": tmp_path, "progress": Silent()}
    with pytest.raises(
        ConfigError, match=rf"^benchmark.threads is {cores + 1}, and Chromium [\d.]+ has {cores} cores?$"
    ):
        prepare(page, ["onnxruntime"], threads=cores + 1, cores=(), **given)


def test_a_command_of_the_host_runs_on_the_host(page: Web) -> None:
    assert page.run(["uname", "-m"], timeout_s=20).stdout.strip() == os.uname().machine


def test_the_address_of_the_page_is_on_no_command_line(page: Web) -> None:
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert page._page.url.split("/")[-2] not in listed


def test_a_page_whose_process_is_killed_is_told_with_the_model(
    short_lived: Web, tiny: models.Model, tmp_path: Path
) -> None:
    running = on(short_lived, tmp_path)
    job = running.job(Measured("tiny", tiny.file, tiny.facts), images(1))
    pids = renderers(short_lived)
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):  # a spare one
            os.kill(pid, signal.SIGKILL)
    with pytest.raises(DeviceError, match=r"^tiny \(onnxruntime\): browser ended .*\n    the page died"):
        running.run(job)


def test_a_run_past_its_time_ends_the_browser_and_leaves_nothing(
    kit: Mapping[str, Path], tiny: models.Model, tmp_path: Path
) -> None:
    with Web(tmp_path / "state", browsers.find_browser(), kit) as page:
        work = page._held.work
        job = on(page, tmp_path).job(Measured("tiny", tiny.file, tiny.facts), images(1))
        endless = replace(job, timed_runs=10_000_000).argv((), (), web_runtime.PROGRAM)
        with pytest.raises(DeviceError, match="ran past 1 s and was ended"):
            page.run(endless, timeout_s=1)
    assert wait_until(lambda: renderers(page) == [])
    assert not work.exists()


def test_a_browser_that_ends_at_once_is_told_with_its_last_words(kit: Mapping[str, Path], tmp_path: Path) -> None:
    program = tmp_path / "chromium"
    program.write_text("#!/bin/sh\necho no usable sandbox >&2\nexit 1\n")
    program.chmod(0o755)
    with (
        pytest.raises(
            DeviceError, match=r"Chromium 1\.2 ended before it opened the page\n    no usable sandbox$"
        ) as caught,
        Web(tmp_path / "state", browsers.Browser(str(program), "Chromium 1.2"), kit),
    ):
        pass
    assert caught.value.code == "MKD-513"
    assert not list((tmp_path / "state").glob("local/work-*"))


def test_a_browser_that_never_opens_the_page_is_ended(
    kit: Mapping[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mobilekd.transports.web._READY_TIMEOUT_S", 5.0)
    program = tmp_path / "chromium"
    program.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\nexec sleep 600\n")
    program.chmod(0o755)
    page = Web(tmp_path / "state", browsers.Browser(str(program), "Chromium 1.2"), kit)
    with pytest.raises(DeviceError, match=r"did not open the page within 5 s"):
        page.__enter__()
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_a_killed_process_leaves_a_temporary_folder_only_until_the_next_use(
    kit: Mapping[str, Path], tmp_path: Path
) -> None:
    script = f"""
import os, pathlib
from mobilekd.device import browsers, web_runtime
from mobilekd.transports.web import Web
kit = web_runtime.kit(pathlib.Path({str(Cache.default_root() / "devices")!r}), lambda _: None)
with Web(pathlib.Path({str(tmp_path)!r}), browsers.find_browser(), kit):
    os.kill(os.getpid(), 9)
"""
    killed = subprocess.run([sys.executable, "-c", script], timeout=120, check=False)
    assert wait_until(lambda: not any(os.fsencode(tmp_path) in words for words in command_lines().values()))
    (left,) = [note.readlink() for note in (tmp_path / "local").glob("*.short")]
    assert (killed.returncode, left.is_dir()) == (-signal.SIGKILL, True)
    with Local(tmp_path):
        pass
    assert (left.exists(), sorted(path.name for path in (tmp_path / "local").iterdir())) == (False, ["lock", "store"])
