"""The key of a stage: everything that can change its output, and what differs between two of them."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mobilekd.artifacts import MadeBy
from mobilekd.stage import Inputs, Stage
from mobilekd.versions import ABSENT, tool_version

HISTORY = "history"

_SHOWN_CHARACTERS = 40
_NOUNS = {"options": "options.", "sources": "source ", "tools": "tool "}


def key_parts(stage: Stage, inputs: Inputs, scan: Callable[[Path], str]) -> dict[str, Any]:
    """Return what the key of a stage is made of, as plain JSON values.

    Of the inputs only what the stage needs, gathers and welcomes counts; scan digests the user's own files by content.
    A stage that tells how they were made has that in its key too.
    """
    needed = [(kind.__name__, inputs.newest(kind).digest) for kind in stage.needs]
    gathered = [(kind.__name__, one.digest) for kind in stage.gathers for one in inputs.all(kind)]
    welcome = [(kind.__name__, inputs.newest(kind).digest) for kind in stage.welcomes if inputs.all(kind)]
    parts = {
        "stage": stage.stage_name(),
        "version": stage.version,
        "options": stage.options(),
        "inputs": [[kind, digest] for kind, digest in needed + gathered + welcome],
        "sources": dict(stage.sources(scan)),
        "tools": {name: tool_version(name) for name in stage.tool_names()},
    }
    return {**parts, HISTORY: history(inputs)} if stage.tells_history else parts


def history(inputs: Inputs) -> dict[str, dict[str, Any]]:
    """Return how each artifact was made, by the label of its stage; measurements are left out."""
    return {one.made_by.label: {**asdict(one.made_by), "digest": one.digest} for one in inputs if one.made_by}


def made_by(stage: Stage, parts: Mapping[str, Any]) -> MadeBy | None:
    """Return what a history keeps of a finished stage; None of one that measures."""
    if stage.measures:
        return None
    sources = stage.recorded_sources(parts["sources"])
    return MadeBy(
        stage.label(), stage.stage_name(), stage.version, stage.recorded_options(), sources, dict(parts["tools"])
    )


def key_of(parts: Mapping[str, Any]) -> str:
    """Return the sha256 of the parts as canonical JSON, 64 hex digits."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Return what differs between the parts of two keys, a phrase each.

    Example:
        >>> differences({"options": {"epochs": 3}, "tools": {}}, {"options": {"epochs": 4}, "tools": {"torch": "2.13"}})
        ['options.epochs 3 -> 4', 'tool torch absent -> 2.13']
    """
    told = [f"version {before.get('version')} -> {after.get('version')}"]
    if before.get("version") == after.get("version"):
        told = []
    for part, noun in _NOUNS.items():
        old, new = dict(_flat(before.get(part, {}))), dict(_flat(after.get(part, {})))
        for name in sorted(old.keys() | new.keys()):
            if old.get(name, ABSENT) != new.get(name, ABSENT):
                is_digest = part == "sources"
                values = (
                    "changed" if is_digest else f"{_short(old.get(name, ABSENT))} -> {_short(new.get(name, ABSENT))}"
                )
                told.append(f"{noun}{name} {values}")
    told += _changed_inputs(before.get("inputs", []), after.get("inputs", []))
    return told + _changed_history(before.get(HISTORY, {}), after.get(HISTORY, {}))


def _changed_inputs(before: Sequence[Sequence[str]], after: Sequence[Sequence[str]]) -> list[str]:
    old, new = _by_kind(before), _by_kind(after)
    return [f"input {kind} changed" for kind in sorted(old.keys() | new.keys()) if old.get(kind) != new.get(kind)]


def _changed_history(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    labels = sorted(before.keys() | after.keys())
    return [f"how {label} was made changed" for label in labels if before.get(label) != after.get(label)]


def _by_kind(inputs: Sequence[Sequence[str]]) -> dict[str, list[str]]:
    kinds: dict[str, list[str]] = {}
    for kind, digest in inputs:
        kinds.setdefault(kind, []).append(digest)
    return kinds


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in table.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"
