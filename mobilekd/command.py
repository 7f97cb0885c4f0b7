"""The command that repeats a build: its pipeline, its profile, and a --set for each option that is not theirs."""

import json
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from mobilekd.config import PROFILE_PREFIX, Kind, Override, Pipeline, load_pipeline, load_profile, shipped_names
from mobilekd.profile import Profile
from mobilekd.release.provenance import recorded_profile
from mobilekd.stage import GIVEN

DATA_HERE = "DIR"
"""What stands in the command for the user's folder of images."""


_BENCHMARK, _BUNDLE = "benchmark", "bundle"


def repeating_command(pipeline: Pipeline, profile: Profile) -> str:
    """Return `mobilekd build` with what changes a byte of the bundle.

    A pipeline or profile of the user's own stands there by its name: its content is in provenance.json.
    """
    sets = [*_profile_sets(profile), *_pipeline_sets(pipeline)]
    data = next((stage for stage in pipeline.stages if stage.recorded_options().get("path") == GIVEN), None)
    words = ["mobilekd", "build", "--profile", _named("devices", profile.name)]
    words += ["--pipeline", _named("pipelines", pipeline.name)]
    words += ["--data", DATA_HERE] if data else []
    return shlex.join([*words, *(word for one in sets for word in ("--set", one))])


def _pipeline_sets(pipeline: Pipeline) -> Iterator[str]:
    if pipeline.name not in shipped_names("pipelines"):
        return
    seed = Override(("seed",), pipeline.seed, "seed")
    shipped = load_pipeline(pipeline.name, [seed])
    if _deciding(pipeline) != _deciding(shipped):
        yield f"stages={toml_value(_runnable(_deciding(pipeline)))}"
    if pipeline.seed != load_pipeline(pipeline.name).seed:
        yield f"seed={pipeline.seed}"
    known = {stage.stage_name(): stage.recorded_options() for stage in shipped.stages}
    for stage in pipeline.stages:
        if not stage.measures:
            yield from _changed(stage.stage_name(), stage.recorded_options(), known.get(stage.stage_name(), {}))


def _deciding(pipeline: Pipeline) -> list[str]:
    """Return the stages that decide the bundle's digest: all but those that measure."""
    return [stage.stage_name() for stage in pipeline.stages if not stage.measures]


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
        return "{" + ", ".join(f"{name} = {toml_value(one)}" for name, one in value.items() if one is not None) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(toml_value, value)) + "]"
    return json.dumps(value)
