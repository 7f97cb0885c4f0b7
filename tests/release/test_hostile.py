"""Every hostile bundle and signature is refused, quickly, in little memory, with a message and no traceback."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mobilekd.release.sign import sign_bundle
from mobilekd.release.signing_keys import read_private_key, write_key_pair

from .hostile import archives, contents, signatures
from .hostile.site import Site

KINDS = {**archives.CASES, **contents.CASES, **signatures.CASES}
CASES = {f"{kind}: {name}": case for kind, cases in KINDS.items() for name, case in cases.items()}
SECONDS, PEAK_BYTES = 1.0, 200_000_000


@pytest.fixture(scope="module")
def arena(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every case, each run once: outcomes.json has how it ended."""
    arena = tmp_path_factory.mktemp("arena")
    good = arena / "good"
    good.mkdir()
    os.link(built / "bundle.zip", good / "x.zip")
    (good / "bundle").symlink_to(built / "bundle")
    for name in ("key", "other"):
        write_key_pair(arena / name, b"")
    key, other = (read_private_key(arena / name, b"") for name in ("key", "other"))
    sign_bundle(good / "x.zip", key)
    words = {}
    for index, (name, case) in enumerate(CASES.items()):
        (arena / f"{index}").mkdir()
        words[name] = case(Site(arena / f"{index}", good, key, other, arena / "key.pub"))
    plan = {"good": [str(good / "x.zip"), "--key", str(arena / "key.pub")], "cases": words}
    (arena / "run/tmp").mkdir(parents=True)
    (arena / "run/plan.json").write_text(json.dumps(plan))
    (arena / "before.json").write_text(json.dumps(_seen(arena)))
    environment = os.environ | {"TMPDIR": str(arena / "run/tmp"), "OPENBLAS_NUM_THREADS": "1"}
    subprocess.run(
        [sys.executable, "-m", "tests.release.hostile.runner", str(arena / "run/plan.json")],
        check=True,
        env=environment,
        stdout=subprocess.DEVNULL,
    )
    return arena


def _seen(arena: Path) -> list[list[Any]]:
    """Return every file and folder but the runner's, with its size and time."""
    below = (path for path in arena.rglob("*") if path.relative_to(arena).parts[0] not in {"run", "before.json"})
    return sorted([ascii(str(path)), path.lstat().st_size, path.lstat().st_mtime_ns] for path in below)


@pytest.fixture(scope="module")
def outcomes(arena: Path) -> dict[str, dict[str, Any]]:
    document: dict[str, dict[str, Any]] = json.loads((arena / "run/outcomes.json").read_text())
    return document


@pytest.mark.parametrize("name", CASES)
def test_a_hostile_bundle_is_refused_with_a_message(name: str, outcomes: dict[str, dict[str, Any]]):
    outcome = outcomes[name]
    assert (outcome["code"], outcome["said"][:7]) == (7, "error: "), outcome["said"]


def test_no_hostile_bundle_takes_long(outcomes: dict[str, dict[str, Any]]):
    assert {name: one["seconds"] for name, one in outcomes.items() if one["seconds"] > SECONDS} == {}


def test_no_hostile_bundle_takes_much_memory(outcomes: dict[str, dict[str, Any]]):
    assert {name: one["peak_bytes"] for name, one in outcomes.items() if one["peak_bytes"] > PEAK_BYTES} == {}


def test_no_hostile_bundle_is_quoted_at_length(outcomes: dict[str, dict[str, Any]]):
    assert {name: one["said"][:500] for name, one in outcomes.items() if len(one["said"]) > 2000} == {}


def test_no_hostile_bundle_steers_the_terminal(outcomes: dict[str, dict[str, Any]]):
    assert {name: one["said"] for name, one in outcomes.items() if not _is_plain(one["said"])} == {}


def _is_plain(said: str) -> bool:
    return said.replace("\n", "").isprintable()


def test_hostile_bundles_leave_nothing_behind(arena: Path, outcomes: dict[str, dict[str, Any]]):
    before = json.loads((arena / "before.json").read_text())
    assert (_seen(arena), list((arena / "run/tmp").iterdir())) == (before, [])
