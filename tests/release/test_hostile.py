"""Every hostile bundle and signature is refused, quickly, in little memory, with a message and no traceback."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from .hostile import arena
from .hostile.arena import CASES, Outcomes

SECONDS, PEAK_BYTES, SAID_CHARACTERS = 1.0, 200_000_000, 2000
"""Seconds of CPU: how long a machine lets a process wait is not the bundle's doing."""


@dataclass(frozen=True)
class Ended:
    """How all cases ended, what was there before and after, and what temporary files were left."""

    outcomes: Outcomes
    before: list[tuple[str, int, int]]
    after: list[tuple[str, int, int]]
    left: list[Path]


@pytest.fixture(scope="module")
def ended(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Ended:
    folder = tmp_path_factory.mktemp("arena")
    arena.build(folder, built)
    before = arena.seen(folder)
    outcomes = arena.verify_all(folder)
    return Ended(outcomes, before, arena.seen(folder), list((folder / "run/tmp").iterdir()))


@pytest.mark.parametrize("name", CASES)
def test_a_hostile_bundle_is_refused_with_a_message(name: str, ended: Ended):
    outcome = ended.outcomes[name]
    assert (outcome["code"], outcome["said"][:7]) == (7, "error: "), outcome["said"]


def test_no_hostile_bundle_takes_long(ended: Ended):
    assert {name: one["seconds"] for name, one in ended.outcomes.items() if one["seconds"] > SECONDS} == {}


def test_no_hostile_bundle_takes_much_memory(ended: Ended):
    assert {name: one["peak_bytes"] for name, one in ended.outcomes.items() if one["peak_bytes"] > PEAK_BYTES} == {}


def test_no_hostile_bundle_is_quoted_at_length(ended: Ended):
    assert [name for name, one in ended.outcomes.items() if len(one["said"]) > SAID_CHARACTERS] == []


def test_no_hostile_bundle_steers_the_terminal(ended: Ended):
    said = {name: one["said"].replace("\n", "") for name, one in ended.outcomes.items()}
    assert {name: one for name, one in said.items() if not one.isprintable()} == {}


def test_hostile_bundles_leave_nothing_behind(ended: Ended):
    assert (ended.after, ended.left) == (ended.before, [])
