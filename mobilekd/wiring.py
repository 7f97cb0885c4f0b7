"""The stages of a pipeline for one profile, and whether each finds what it reads."""

from collections.abc import Sequence

from mobilekd.artifacts import Artifact
from mobilekd.command import repeating_command
from mobilekd.config import Pipeline
from mobilekd.errors import ConfigError, one_line
from mobilekd.plugins import STAGES, choices
from mobilekd.profile import Profile
from mobilekd.stage import Stage


def expand(pipeline: Pipeline, profile: Profile, until: str = "") -> tuple[Stage, ...]:
    """Return the stages to run, in order, each wired to one before it; `until` is a name or label, empty for all.

    Raises:
        ConfigError: `until` is no stage of the pipeline, or a stage reads what no stage before it makes.
    """
    stages = tuple(one for stage in pipeline.stages for one in stage.for_profile(profile))
    stages = tuple(_told(stage, stages, pipeline, profile) for stage in stages)
    check_wiring(stages)
    if not until:
        return stages
    last = [index for index, stage in enumerate(stages) if until in {stage.stage_name(), stage.label()}]
    if not last:
        hint = choices(until, (stage.stage_name() for stage in pipeline.stages))
        raise ConfigError(
            f"--until {one_line(until)}: no such stage in pipeline {pipeline.name!r}", hint=hint, code="MKD-223"
        )
    return stages[: last[-1] + 1]


def _told(stage: Stage, stages: Sequence[Stage], pipeline: Pipeline, profile: Profile) -> Stage:
    """Return a stage with the command that repeats the build, where it has such an option."""
    if "command" not in type(stage).model_fields:
        return stage
    command = repeating_command(pipeline.name, pipeline.seed, stages, profile)
    return stage.model_copy(update={"command": command})


def check_wiring(stages: Sequence[Stage]) -> None:
    """Accept stages in an order in which each finds what it needs and gathers.

    Raises:
        ConfigError: One does not; the message names the stage and the artifact, the hint who makes it.
    """
    for index, stage in enumerate(stages):
        made = tuple(before.makes for before in stages[:index])
        for kind in (*stage.needs, *stage.gathers):
            if not any(issubclass(one, kind) for one in made):
                name = stage.stage_name()
                message = f"stage {name!r} reads a {kind.__name__}, and no stage before it makes one"
                raise ConfigError(message, hint=_who_makes(kind, name), code="MKD-222")


def reads(stage: Stage, kinds: set[type[Artifact]]) -> bool:
    """Return whether a stage reads an artifact of one of these kinds."""
    return any(issubclass(kind, wanted) for wanted in (*stage.needs, *stage.gathers, *stage.welcomes) for kind in kinds)


def _who_makes(kind: type[Artifact], reader: str) -> str:
    makers = [name for name in STAGES.names() if STAGES.load(name).makes is kind]
    if not makers:
        return "no stage that is installed makes one"
    return f"put {' or '.join(repr(name) for name in makers)} before {reader!r} in stages"
