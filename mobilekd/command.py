"""The command that repeats a build: its pipeline, its profile, and a --set for each option that is not theirs."""

import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mobilekd.config import PROFILE_PREFIX, Kind, Override, load_pipeline, load_profile, shipped_names
from mobilekd.profile import Profile
from mobilekd.release.provenance import recorded_profile
from mobilekd.stage import GIVEN, Stage

DATA_HERE = "DIR"
"""What stands in the command for the user's folder of images."""

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_BENCHMARK, _BUNDLE = "benchmark", "bundle"


def repeating_command(pipeline: str, seed: int, stages: Sequence[Stage], profile: Profile) -> str:
    """Return `mobilekd build` with what changes a byte of the bundle, each such build in one way.

    A pipeline or profile of the user's own stands there by its name: its content is in provenance.json.

    Args:
        pipeline: Its name.
        seed: Of the pipeline.
        stages: As they are for the profile.
        profile: What is built for.
    """
    mine = _recorded(stages)
    sets = [*_profile_sets(profile), *_pipeline_sets(pipeline, seed, mine, profile)]
    words = ["mobilekd", "build", "--profile", _named("devices", profile.name)]
    words += ["--pipeline", _named("pipelines", pipeline)]
    words += ["--data", DATA_HERE] if mine.get("data", {}).get("path") == GIVEN else []
    return shlex.join([*words, *(word for one in sets for word in ("--set", one))])


def _recorded(stages: Sequence[Stage]) -> dict[str, dict[str, Any]]:
    """Return the options of stages by name: of those that decide the bundle's digest, all but those that measure.

    What the profile fills in is the same in the shipped pipeline for that profile, so it is never repeated.
    """
    return {one.stage_name(): one.recorded_options() for one in reversed(stages) if not one.measures}


def _pipeline_sets(name: str, seed: int, mine: dict[str, dict[str, Any]], profile: Profile) -> Iterator[str]:
    if name not in shipped_names("pipelines"):
        return
    shipped = load_pipeline(name, [Override(("seed",), seed, "seed")])
    known = _recorded([one for stage in shipped.stages if not stage.measures for one in stage.for_profile(profile)])
    if list(mine) != list(known):
        yield f"stages={toml_value(_runnable(list(reversed(mine))))}"
    if seed != load_pipeline(name).seed:
        yield f"seed={seed}"
    for stage in reversed(mine):
        yield from _changed(stage, mine[stage], known.get(stage, {}))


def _runnable(names: list[str]) -> list[str]:
    """Return the stages with the measurement that a bundle can't be packed without."""
    return [one for name in names for one in ((_BENCHMARK, name) if name == _BUNDLE else (name,))]


def _profile_sets(profile: Profile) -> Iterator[str]:
    if profile.name in shipped_names("devices"):
        shipped = recorded_profile(load_profile(profile.name))
        yield from _changed(PROFILE_PREFIX, recorded_profile(profile), shipped)


def _changed(prefix: str, values: Mapping[str, Any], known: Mapping[str, Any]) -> Iterator[str]:
    for name, value in values.items():
        if value is None or value == GIVEN or value == known.get(name):
            continue
        if isinstance(value, dict) and isinstance(known.get(name), dict):
            yield from _changed(f"{prefix}.{name}", value, known[name])
        else:
            yield f"{prefix}.{name}={toml_value(value)}"


def _named(kind: Kind, name: str) -> str:
    return name if name in shipped_names(kind) else f"{name}.toml"


def toml_value(value: Any) -> str:
    """Return a value as --set reads it.

    Example:
        >>> toml_value({"kd": {"temperature": 4.0}, "names": ["a", "b"], "on": True})
        '{kd = {temperature = 4.0}, names = ["a", "b"], on = true}'
    """
    if isinstance(value, dict):
        return (
            "{" + ", ".join(f"{_key(name)} = {toml_value(one)}" for name, one in value.items() if one is not None) + "}"
        )
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(toml_value, value)) + "]"
    return json.dumps(value, ensure_ascii=False)  # JSON would write an emoji as two halves, which TOML has no text for


def _key(name: str) -> str:
    return name if _BARE_KEY.fullmatch(name) else toml_value(name)
