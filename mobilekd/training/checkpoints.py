"""Checkpoints: one file, replaced in one move, that holds all that the next step depends on."""

import os
import pickle
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from mobilekd.stage import Progress

_KEYS = frozenset({"version", "recipe", "step", "finished", "history", "network"})
_TIMES_THE_LAST = 20
_VERSION = 3  # 3: the average holds statistics and the number of its updates


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


class Pace:
    """When a run writes its next checkpoint: every so many seconds, and sooner after an epoch where that is cheap.

    A run that is shorter than the pause has none otherwise, and a run that diverges nothing to go back to.
    """

    def __init__(self, pause_s: float, epoch_pause_s: float) -> None:
        """Begin to count.

        Args:
            pause_s: Between two checkpoints.
            epoch_pause_s: Between two of which the later ends an epoch; at least 20 times what the last one took.
        """
        self._pause_s, self._epoch_pause_s = pause_s, epoch_pause_s
        self._saved_s, self._took_s = time.monotonic(), 0.0

    def is_due(self, *, closes_epoch: bool) -> bool:
        """Return whether to write one after this step."""
        gone_s = time.monotonic() - self._saved_s
        return gone_s > self._pause_s or (
            closes_epoch and gone_s > max(self._epoch_pause_s, _TIMES_THE_LAST * self._took_s)
        )

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Take note of a checkpoint that is written while the context is open."""
        started_s = time.monotonic()
        yield
        self._saved_s = time.monotonic()
        self._took_s = self._saved_s - started_s
