import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from mobilekd.artifacts import digest_tree
from tests.processes import wait_until

SLOW_BUILD = """
    import sys, time
    from pathlib import Path
    sys.path.insert(0, {root_folder!r})
    from tests.toys import Silent, Toy, toy_pipeline
    from tests import toys
    from mobilekd.cache import Cache
    from mobilekd.pipeline import Workshop, build
    from mobilekd.profile import Deployment, Profile, Target

    class Train(toys.Train):
        def run(self, inputs, context):
            (context.out / "half").write_text("half")
            with Path({log!r}).open("a") as stream:
                stream.write("ran\\n")
            until = time.monotonic() + {seconds}
            while time.monotonic() < until and not Path({go!r}).exists():
                time.sleep(0.02)
            (context.out / "half").unlink()
            super().run(inputs, context)

    class Telling(Silent):
        def say(self, line):
            print(line, flush=True)

    target, deploy = Target(os="linux", abi="x86_64"), (Deployment(backend="one"),)
    profile = Profile(name="toy", title="", target=target, deploy=deploy)
    watcher = Telling()
    build(toy_pipeline(train=Train()), profile, Workshop(Cache(Path({root!r})), Path("."), watcher))
    print("\\n".join(watcher.lines))
"""


def start_slow_build(tmp_path: Path, seconds: float) -> "subprocess.Popen[str]":
    names = {
        "root_folder": str(Path(__file__).parent.parent),
        "log": str(tmp_path / "log"),
        "go": str(tmp_path / "go"),
        "root": str(tmp_path / "cache"),
    }
    code = textwrap.dedent(SLOW_BUILD).format(**names, seconds=seconds)
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)


def test_two_builds_at_once_run_a_stage_once_and_the_second_says_that_it_waits(tmp_path: Path) -> None:
    first = start_slow_build(tmp_path, seconds=300)
    assert wait_until((tmp_path / "log").exists)
    second = start_slow_build(tmp_path, seconds=300)
    assert second.stdout
    assert "train: another build makes the same; waiting for it\n" in iter(second.stdout.readline, "")
    (tmp_path / "go").touch()
    told = [process.communicate(timeout=300)[0] for process in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0]
    assert (tmp_path / "log").read_text() == "ran\n"
    assert "reuse train: cached" in told[1]


def test_a_killed_build_finishes_the_next_time(tmp_path: Path) -> None:
    killed = start_slow_build(tmp_path, seconds=300)
    assert wait_until((tmp_path / "log").exists)
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    again = start_slow_build(tmp_path, seconds=0)
    told, _ = again.communicate(timeout=300)
    assert again.returncode == 0
    assert "reuse data: cached" in told
    assert "end train" in told
    assert list((tmp_path / "cache").glob("stages/train/*/artifact/half")) == []


@pytest.mark.parametrize("after_s", [0.2, 0.35, 0.5, 0.65, 0.8])
def test_a_build_killed_at_any_moment_ends_with_the_same_bytes(tmp_path: Path, after_s: float) -> None:
    undisturbed, disturbed = tmp_path / "undisturbed", tmp_path / "disturbed"
    undisturbed.mkdir()
    disturbed.mkdir()
    start_slow_build(undisturbed, seconds=0.1).communicate(timeout=300)
    killed = start_slow_build(disturbed, seconds=0.1)
    time.sleep(after_s)
    killed.kill()
    killed.communicate()
    again = start_slow_build(disturbed, seconds=0.1)
    again.communicate(timeout=300)
    assert again.returncode == 0
    assert artifact_digests(disturbed / "cache") == artifact_digests(undisturbed / "cache")
    assert list((disturbed / "cache").glob("stages/*/*.partial")) == []


def artifact_digests(cache: Path) -> dict[str, str]:
    return {str(path.relative_to(cache)): digest_tree(path) for path in cache.glob("stages/*/*/artifact")}
