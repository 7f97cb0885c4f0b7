"""The pipeline that ends in a ranking of layers, made from one that builds."""

from dataclasses import replace

from mobilekd.config import Pipeline
from mobilekd.errors import ConfigError
from mobilekd.plugins import STAGES
from mobilekd.stage import Stage

STAGE = "sensitivity"
_OPTIONS_OF, _AFTER = "quantize", "distill"


def with_sensitivity(pipeline: Pipeline, *, images: int | None = None) -> Pipeline:
    """Return the stages of a pipeline up to `distill`, and the ranking behind them.

    A pipeline file that names the ranking among its stages has its options there; else they are those of `quantize`,
    so that what is ranked is what the build would calibrate.

    Args:
        pipeline: As read from its file.
        images: Images to answer; the stage's own number when None.

    Raises:
        ConfigError: The pipeline has no `distill`, or no `quantize` to take the options from.
    """
    stages = {stage.stage_name(): stage for stage in pipeline.stages}
    names = list(stages)
    if _AFTER not in stages:
        raise ConfigError(
            f"pipeline {pipeline.name!r} has no stage {_AFTER!r}", hint="the ranking needs its student", code="MKD-222"
        )
    kind: type[Stage] = STAGES.load(STAGE)
    options = _options(pipeline, stages, kind) if STAGE not in stages else dict(stages[STAGE])
    if images is not None:
        options["images"] = images
    before = (stages[name] for name in names[: names.index(_AFTER) + 1])
    return replace(pipeline, stages=(*before, kind.model_validate(options)))


def _options(pipeline: Pipeline, stages: dict[str, Stage], kind: type[Stage]) -> dict[str, object]:
    if _OPTIONS_OF not in stages:
        raise ConfigError(
            f"pipeline {pipeline.name!r} has no stage {_OPTIONS_OF!r}",
            hint=f"the ranking calibrates as it does; or name {STAGE!r} in stages, with options of its own",
            code="MKD-230",
        )
    return {name: value for name, value in stages[_OPTIONS_OF] if name in kind.model_fields}
