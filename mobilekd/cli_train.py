"""The commands that train: one distillation, and many."""

from pathlib import Path
from typing import Annotated

import typer

from mobilekd.options import (
    CacheOption,
    DataOption,
    FreshOption,
    JsonOption,
    SetOption,
    SharedCacheOption,
    SkipOption,
    TensorboardOption,
    overrides_of,
)
from mobilekd.workplace import open_workshop

_PROFILE = "host"  # training is the same for every profile
_PIPELINE = Annotated[
    str, typer.Option("--pipeline", metavar="NAME", help="Name or .toml file; quickstart, with --data imagefolder.")
]
_NETWORK = "A timm name, as resnet34, or python:package.module:factory."


def train(
    *,
    teacher: Annotated[str, typer.Option("--teacher", metavar="NETWORK", help=_NETWORK)] = "",
    student: Annotated[str, typer.Option("--student", metavar="NETWORK", help=_NETWORK)] = "",
    teacher_checkpoint: Annotated[
        str, typer.Option("--teacher-checkpoint", metavar="FILE", help="Weights of a teacher that is trained already.")
    ] = "",
    method: Annotated[
        list[str] | None, typer.Option("--method", metavar="NAME", help="See `mobilekd list methods`. Repeatable.")
    ] = None,
    temperature: Annotated[float | None, typer.Option("--temperature", help="Divides the logits of both.")] = None,
    alpha: Annotated[
        float | None, typer.Option("--alpha", help="Share of the teacher's term (soft_weight), 0 to 1.")
    ] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", metavar="N", help="Epochs of the student.")] = None,
    baseline: Annotated[
        bool, typer.Option("--baseline/--no-baseline", help="Train the student without a teacher too, to compare.")
    ] = False,
    pipeline: _PIPELINE = "",
    set_: SetOption = None,
    data: DataOption = None,
    skip_bad_images: SkipOption = False,
    fresh: FreshOption = False,
    tensorboard: TensorboardOption = None,
    cache: CacheOption = None,
    shared_cache: SharedCacheOption = "",
    as_json: JsonOption = False,
) -> None:
    """Train a teacher, and distill a student from it; no conversion."""
    from mobilekd import config, show_training
    from mobilekd import pipeline as pipelines
    from mobilekd.plan import Again
    from mobilekd.train import TrainOptions, train_overrides, train_pipeline, train_result

    options = TrainOptions(teacher, student, teacher_checkpoint, tuple(method or ()), temperature, alpha, epochs)
    overrides = [*train_overrides(options), *overrides_of(set_, data, skip_bad_images=skip_bad_images)]
    chosen = config.load_pipeline(pipeline or default_pipeline(data), overrides)
    target = config.load_profile(_PROFILE, overrides)
    with open_workshop(cache, tensorboard, shared_cache) as workshop:
        result = pipelines.build(
            train_pipeline(chosen, baseline=baseline), target, workshop, again=Again(everything=fresh)
        )
    show_training.show_training(train_result(result), as_json=as_json)


def default_pipeline(data: Path | None) -> str:
    """Return the pipeline of a command that names none."""
    return "imagefolder" if data else "quickstart"


def sweep(
    *,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where the tables go.")] = Path("sweep"),
    teacher: Annotated[
        list[str] | None, typer.Option("--teacher", metavar="NETWORK", help=f"{_NETWORK} Repeatable.")
    ] = None,
    student: Annotated[
        list[str] | None, typer.Option("--student", metavar="NETWORK", help=f"{_NETWORK} Repeatable.")
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option("--method", metavar="NAME", help="Repeatable; with commas, several in one student."),
    ] = None,
    choice: Annotated[
        list[str] | None,
        typer.Option("--set-choice", metavar="KEY=A,B", help="Values to try, as distill.temperature=2,4. Repeatable."),
    ] = None,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Students of each configuration.")] = 1,
    trials: Annotated[
        int | None, typer.Option("--trials", metavar="N", min=1, help="Configurations; fewer than all: TPE chooses.")
    ] = None,
    baseline: Annotated[
        bool, typer.Option("--baseline/--no-baseline", help="Train each student without a teacher too, to compare.")
    ] = False,
    study: Annotated[
        str, typer.Option("--study", metavar="WHERE", help="FILE.journal, or postgresql://...; OUT/study.journal.")
    ] = "",
    until: Annotated[str, typer.Option("--until", metavar="STAGE", help="Last stage of every trial.")] = "distill",
    profile: Annotated[str, typer.Option("--profile", metavar="NAME", help="For stages after distill.")] = _PROFILE,
    pipeline: _PIPELINE = "",
    set_: SetOption = None,
    data: DataOption = None,
    skip_bad_images: SkipOption = False,
    cache: CacheOption = None,
    shared_cache: SharedCacheOption = "",
    as_json: JsonOption = False,
) -> None:
    """Train every combination of teachers, students, methods and options, and rank them; the same command goes on."""
    from mobilekd import show_sweep
    from mobilekd.sweep import run_sweep
    from mobilekd.sweep_grid import axes_of
    from mobilekd.sweep_trial import SweepPlan

    plan = SweepPlan(
        axes=axes_of(teacher or (), student or (), method or (), choice or ()),
        seeds=seeds,
        trials=trials,
        until=until,
        pipeline=pipeline or default_pipeline(data),
        profile=profile,
        overrides=tuple(overrides_of(set_, data, skip_bad_images=skip_bad_images)),
        baseline=baseline,
    )
    with open_workshop(cache, shared=shared_cache) as workshop:
        document = run_sweep(plan, workshop, study or str(out / "study.journal"), out)
    show_sweep.show_sweep(document, out, as_json=as_json)
