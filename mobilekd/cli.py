"""The command line: read words, call, print, exit code. Nothing heavy is imported before a command asks for it."""

import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from typer.exceptions import TyperException

from mobilekd import __version__
from mobilekd.cli_bundle import bundle_app
from mobilekd.cli_devices import devices_app
from mobilekd.cli_explain import explain
from mobilekd.cli_release import gate
from mobilekd.cli_store import add_store_commands
from mobilekd.cli_train import sweep, train
from mobilekd.errors import (
    CODE_INTERRUPTED,
    EXIT_INTERRUPTED,
    EXIT_OK,
    ConfigError,
    MissingToolError,
    MobilekdError,
)
from mobilekd.failures import end_as_with_ctrl_c, report_bug, show_failure, show_trouble, show_usage
from mobilekd.options import (
    AgainstOption,
    BisectOption,
    BoundOption,
    BudgetOption,
    BundleArgument,
    CacheOption,
    DataOption,
    DeviceImagesOption,
    FreshOption,
    ImagesOption,
    JsonOption,
    JunitOption,
    MarkdownOption,
    ModeOption,
    OnOption,
    OutOption,
    PipelineOption,
    ProfileOption,
    RemeasureOption,
    SetOption,
    SharedCacheOption,
    SkipOption,
    StrictOption,
    TensorboardOption,
    UntilOption,
    device_overrides,
    overrides_of,
    profile_overrides,
)
from mobilekd.workplace import open_workshop

DEFAULT_PROFILE = "android-arm64"
DEFAULT_PIPELINE = "quickstart"

app = typer.Typer(rich_markup_mode=None, invoke_without_command=True, no_args_is_help=True, add_completion=False)
toolchain_app = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="Isolated environments of converters.")
cache_app = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="Finished stages, kept by content.")
app.add_typer(bundle_app, name="bundle")
app.add_typer(toolchain_app, name="toolchain")
app.add_typer(cache_app, name="cache")
app.add_typer(devices_app, name="devices")
add_store_commands(app)
app.command()(train)
app.command()(sweep)
app.command()(gate)
app.command()(explain)


@app.command()
def build(
    *,
    profile: ProfileOption = DEFAULT_PROFILE,
    pipeline: PipelineOption = DEFAULT_PIPELINE,
    set_: SetOption = None,
    until: UntilOption = "",
    fresh: FreshOption = False,
    remeasure: RemeasureOption = False,
    data: DataOption = None,
    skip_bad_images: SkipOption = False,
    out: OutOption = Path("dist"),
    tensorboard: TensorboardOption = None,
    budget: BudgetOption = None,
    against: AgainstOption = None,
    strict: StrictOption = False,
    junit: JunitOption = None,
    markdown: MarkdownOption = None,
    cache: CacheOption = None,
    shared_cache: SharedCacheOption = "",
    as_json: JsonOption = False,
) -> None:
    """Build a model bundle: train, distill, quantize, convert, prove, measure, pack."""
    from mobilekd import config, delivery, show
    from mobilekd import pipeline as pipelines
    from mobilekd.gating import Outcome, limits_of
    from mobilekd.plan import Again

    overrides = overrides_of(set_, data, skip_bad_images=skip_bad_images)
    target, chosen = config.load_profile(profile, overrides), config.load_pipeline(pipeline, overrides)
    outcome = Outcome(strict, junit, markdown)
    outcome.check(against)
    delivery.check_place(chosen.name, target.name, out)
    limits, again = limits_of(target.budget, budget, against), Again(everything=fresh, measurements=remeasure)
    with open_workshop(cache, tensorboard, shared_cache) as workshop:
        result = pipelines.build(chosen, target, workshop, until=until, again=again)
    delivered = delivery.deliver(result, out)
    gates = limits.of_build(result)
    show.show_build(delivery.summary(result, delivered, gates), gates, as_json=as_json)
    outcome.finish(delivered.folder.name, gates)


@app.command()
def plan(
    *,
    profile: ProfileOption = DEFAULT_PROFILE,
    pipeline: PipelineOption = DEFAULT_PIPELINE,
    set_: SetOption = None,
    until: UntilOption = "",
    fresh: FreshOption = False,
    remeasure: RemeasureOption = False,
    data: DataOption = None,
    skip_bad_images: SkipOption = False,
    cache: CacheOption = None,
    shared_cache: SharedCacheOption = "",
    as_json: JsonOption = False,
) -> None:
    """Show what a build would run, what it would reuse, and why."""
    from mobilekd import config, show
    from mobilekd import pipeline as pipelines
    from mobilekd.plan import Again

    overrides = overrides_of(set_, data, skip_bad_images=skip_bad_images)
    target, chosen = config.load_profile(profile, overrides), config.load_pipeline(pipeline, overrides)
    again = Again(everything=fresh, measurements=remeasure)
    with open_workshop(cache, shared=shared_cache) as workshop:
        planned = pipelines.plan(chosen, target, workshop, until=until, again=again)
    show.show_plan(planned, as_json=as_json)


@app.command()
def sensitivity(
    *,
    profile: ProfileOption = DEFAULT_PROFILE,
    pipeline: PipelineOption = DEFAULT_PIPELINE,
    set_: SetOption = None,
    images: ImagesOption = None,
    remeasure: RemeasureOption = False,
    data: DataOption = None,
    skip_bad_images: SkipOption = False,
    cache: CacheOption = None,
    as_json: JsonOption = False,
) -> None:
    """Rank the layers of the student by what each costs in int8."""
    from mobilekd import config, show_sensitivity
    from mobilekd import pipeline as pipelines
    from mobilekd.artifacts import SensitivityReport
    from mobilekd.plan import Again
    from mobilekd.sensitivity import with_sensitivity

    overrides = overrides_of(set_, data, skip_bad_images=skip_bad_images)
    target, chosen = config.load_profile(profile, overrides), config.load_pipeline(pipeline, overrides)
    ranked = with_sensitivity(chosen, images=images)
    with open_workshop(cache) as workshop:
        result = pipelines.build(ranked, target, workshop, again=Again(measurements=remeasure))
    show_sensitivity.show_sensitivity(result.the(SensitivityReport).path, as_json=as_json)


@app.command()
def bench(
    *,
    model: Annotated[Path, typer.Argument(metavar="A", help="A bundle, or one model file.")],
    other: Annotated[
        Path | None, typer.Argument(metavar="[B]", help="A second model: is it faster? BUNDLE:DEPLOYMENT names one.")
    ] = None,
    profile: ProfileOption = DEFAULT_PROFILE,
    on: OnOption = None,
    mode: ModeOption = None,
    images: DeviceImagesOption = None,
    layers: Annotated[bool, typer.Option("--layers", help="Show what each layer costs.")] = False,
    set_: SetOption = None,
    cache: CacheOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure models on a device, an emulator or this host: what they cost, and whether they answer as they do here."""
    from mobilekd import bench as benches
    from mobilekd import config, show_bench

    overrides = [*profile_overrides(set_), *device_overrides(on, mode, images)]
    target = config.load_profile(profile, overrides)
    with open_workshop(cache) as workshop:
        document = benches.measure(
            [path for path in (model, other) if path],
            target,
            workshop.cache,
            workshop.toolchains.parent / "devices",
            workshop.watcher,
            layers=layers,
        )
    show_bench.show_bench(document, as_json=as_json)
    benches.check_answers(document, target)


@app.command()
def parity(
    *, bundle: BundleArgument, bisect: BisectOption = False, bound: BoundOption = None, as_json: JsonOption = False
) -> None:
    """Show how each deployed model compares with the model that was trained.

    With --bisect, tensor by tensor: the first operator of each int8 model that adds more than rounding. Exit code 7
    when there is one, with the result on stdout all the same.
    """
    from mobilekd.release.recorded import recorded_drift, recorded_parity
    from mobilekd.show_bundle import show_parity
    from mobilekd.show_drift import check_drift, show_drift

    if bound is not None and not bisect:
        raise ConfigError(
            "--bound counts with --bisect only",
            hint=f"mobilekd parity {bundle} --bisect --bound {bound:g}",
            code="MKD-204",
        )
    if not bisect:
        show_parity(recorded_parity(bundle), as_json=as_json)
        return
    record = recorded_drift(bundle)
    show_drift(record, bound, as_json=as_json)
    check_drift(record, bound)


@app.command()
def doctor(
    *,
    profile: ProfileOption = DEFAULT_PROFILE,
    pipeline: PipelineOption = DEFAULT_PIPELINE,
    cache: CacheOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what is installed and reachable, and how to mend what is not."""
    from mobilekd import doctor as doctors
    from mobilekd import show

    with open_workshop(cache) as workshop:
        checks = doctors.examine(pipeline, profile, workshop.cache, workshop.toolchains)
    show.show_checks(checks, as_json=as_json)
    if broken := [one for one in checks if one.is_needed and not one.is_ok]:
        raise MissingToolError(
            f"{broken[0].name} can't be built here", hint="; ".join(one.mend for one in broken), code="MKD-307"
        )


@app.command("list")
def list_names(
    *,
    kind: Annotated[str, typer.Argument(help="methods, backends, transports, stages, pipelines or profiles")],
    as_json: JsonOption = False,
) -> None:
    """List what can be named in a pipeline or a profile."""
    from mobilekd import show

    show.show_names(kind, as_json=as_json)


@app.command()
def init(
    *,
    images: Annotated[
        Path,
        typer.Argument(
            metavar="DIR", help="Folder with train/CLASS/*.jpg and val/CLASS/*.jpg, or CLASS/*.jpg; or an .npz file."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The file to write.")] = Path("pipeline.toml"),
    cache: CacheOption = None,
    as_json: JsonOption = False,
) -> None:
    """Look at your images and this machine, and write a commented pipeline file for them."""
    from mobilekd.cache import Cache
    from mobilekd.first_look import look_at, look_at_machine
    from mobilekd.first_options import choose
    from mobilekd.show_first_look import show_first_look
    from mobilekd.starter import check_free, write_pipeline

    check_free(out)
    look, machine = look_at(images), look_at_machine(cache or Cache.default_root())
    options = choose(look, machine)
    write_pipeline(look, machine, options, out)
    show_first_look(look, machine, options, out, as_json=as_json)


@toolchain_app.command("install")
def toolchain_install(name: Annotated[str, typer.Argument(metavar="NAME")] = "onnx2tf") -> None:
    """Prepare a converter's environment now, so that builds need no network."""
    from mobilekd import toolchain
    from mobilekd.plugins import choices

    if name not in toolchain.names():
        raise ConfigError(f"there is no toolchain {name!r}", hint=choices(name, toolchain.names()), code="MKD-206")
    with open_workshop(None) as workshop:
        python = toolchain.install(name, workshop.toolchains, workshop.watcher)
    print(python)


@toolchain_app.command("list")
def toolchain_list(*, as_json: JsonOption = False) -> None:
    """Show the converters' environments, made or not."""
    from mobilekd import show, toolchain

    with open_workshop(None) as workshop:
        states = {name: toolchain.status(name, workshop.toolchains) for name in toolchain.names()}
    show.show_toolchains(states, as_json=as_json)


@cache_app.command("show")
def cache_show(*, cache: CacheOption = None, as_json: JsonOption = False) -> None:
    """Show how much each stage keeps."""
    from mobilekd import prune, show
    from mobilekd.cache import Cache

    root = cache or Cache.default_root()
    show.show_usage(root, prune.usage(root), as_json=as_json)


@cache_app.command("prune")
def cache_prune(
    *,
    cache: CacheOption = None,
    days: Annotated[int, typer.Option("--days", min=0, help="Keep what was made or used in this many days.")] = 30,
) -> None:
    """Delete what was not used for some time, and what dead builds left behind."""
    from mobilekd import prune
    from mobilekd.cache import Cache
    from mobilekd.units import readable_bytes

    root = cache or Cache.default_root()
    print(f"{readable_bytes(prune.prune(root, unused_days=days))} freed in {root}")


@app.callback()
def common(
    *,
    version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
) -> None:
    """From a big teacher to a small int8 bundle that a release engineer can ship."""
    if version:
        print(f"mobilekd {__version__}")
        raise typer.Exit


def main() -> None:
    """Run the command line and leave with its exit code."""
    end_as_with_ctrl_c()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code; what went wrong is shown on stderr."""
    try:
        code = int(app(args=list(arguments), prog_name="mobilekd", standalone_mode=False) or EXIT_OK)
    except MobilekdError as failure:
        return show_failure(failure)
    except TyperException as usage:
        return show_usage(usage)
    except (typer.Abort, KeyboardInterrupt):
        code = EXIT_INTERRUPTED
    except BrokenPipeError:  # the reader of our output, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return EXIT_OK
    except OSError as trouble:
        return show_trouble(trouble)
    except Exception as bug:  # noqa: BLE001 - the one place: a bug of ours must not end in a page of traceback
        return report_bug(bug)
    if code == EXIT_INTERRUPTED:  # typer turns Ctrl-C into this code
        said = (
            "interrupted; repeat the command: it goes on from the last finished stage, a training from its checkpoint"
        )
        print(f"{said} [{CODE_INTERRUPTED}]", file=sys.stderr)
    return code


if __name__ == "__main__":
    main()
