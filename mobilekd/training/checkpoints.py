"""Checkpoints: one file, replaced in one move, that holds all that the next step depends on."""

import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from mobilekd.stage import Progress

_KEYS = frozenset({"version", "recipe", "step", "finished", "history", "network"})
_VERSION = 2


def save(path: Path, recipe: str, state: Mapping[str, object]) -> None:
    """Write a checkpoint; a kill at any moment leaves the old one or the new one."""
    beside = path.with_suffix(".tmp")
    torch.save({"version": _VERSION, "recipe": recipe, **state}, beside)
    os.replace(beside, path)  # noqa: PTH105 - named for what matters: the switch is atomic


def load(path: Path, recipe: str, title: str, progress: Progress) -> dict[str, Any] | None:
    """Return what `save` wrote; None, with a line that says why, when there is nothing to go on from."""
    if not path.is_file():
        return None
    try:
        state: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    except (pickle.UnpicklingError, RuntimeError, EOFError):  # cut off by a crash of the machine: train again
        progress.say(f"{title}: the checkpoint {path} is damaged; starting again")
        return None
    if not state.keys() >= _KEYS or state["version"] != _VERSION:
        progress.say(f"{title}: the checkpoint {path} is of an older version; starting again")
        return None
    if state["recipe"] != recipe:
        progress.say(f"{title}: the checkpoint {path} is of another recipe; starting again")
        return None
    return state
