"""The words of the command line: options that several commands take."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from mobilekd.config import Override

ProfileOption = Annotated[str, typer.Option("--profile", metavar="NAME", help="What to build for: name or .toml file.")]
PipelineOption = Annotated[str, typer.Option("--pipeline", metavar="NAME", help="Which stages: name or .toml file.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="One option, as distill.epochs=5. Repeatable.")
]
UntilOption = Annotated[str, typer.Option("--until", metavar="STAGE", help="Stop after this stage.")]
FreshOption = Annotated[bool, typer.Option("--fresh", help="Make every stage again.")]
RemeasureOption = Annotated[bool, typer.Option("--remeasure", help="Take measurements again.")]
DataOption = Annotated[Path | None, typer.Option("--data", metavar="DIR", help="Folder of the images (data.path).")]
SkipOption = Annotated[bool, typer.Option("--skip-bad-images", help="Go on without images that can't be read.")]
OutOption = Annotated[Path, typer.Option("--out", metavar="DIR", help="Where the bundle goes.")]
CacheOption = Annotated[Path | None, typer.Option("--cache", metavar="DIR", help="Where finished stages are kept.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
BisectOption = Annotated[bool, typer.Option("--bisect", help="Name the first tensor that drifts, in every model.")]
BoundOption = Annotated[
    float | None, typer.Option("--bound", metavar="STEPS", min=0.0, help="With --bisect: steps that are rounding; 2.")
]
ImagesOption = Annotated[
    int | None, typer.Option("--images", metavar="N", min=1, help="Images of the calibration split to answer.")
]
TensorboardOption = Annotated[
    Path | None, typer.Option("--tensorboard", metavar="DIR", help="Write TensorBoard curves of training there.")
]
OnOption = Annotated[
    str | None, typer.Option("--on", metavar="PLACE", help="device, emulator, host, or auto (device.place).")
]
ModeOption = Annotated[
    str | None, typer.Option("--mode", metavar="MODE", help="quick or release: 1,024 runs and 60 s (benchmark.mode).")
]
DeviceImagesOption = Annotated[
    int | None, typer.Option("--images", metavar="N", min=1, help="Test images that every model answers there.")
]
BundleArgument = Annotated[Path, typer.Argument(metavar="BUNDLE", help="A .mobilekd.zip, or a bundle folder.")]


def overrides_of(texts: Sequence[str] | None, data: Path | None, *, skip_bad_images: bool) -> list["Override"]:
    """Return every --set, and the options that stand for one."""
    from mobilekd.config import Override, parse_override

    found = [parse_override(text) for text in texts or ()]
    if data is not None:
        found.append(Override(("data", "path"), str(data), f"--data {data}"))
    if skip_bad_images:
        found.append(Override(("data", "skip_bad_images"), value=True, text="--skip-bad-images"))
    return found


def profile_overrides(texts: Sequence[str] | None) -> list["Override"]:
    """Return every --set of a command that reads a profile and no pipeline.

    Raises:
        ConfigError: One is of a pipeline's stage: nothing would read it.
    """
    from mobilekd.config import PROFILE_PREFIX
    from mobilekd.errors import ConfigError, one_line

    found = overrides_of(texts, None, skip_bad_images=False)
    for one in found:
        if one.keys[0] != PROFILE_PREFIX:
            raise ConfigError(
                f"{one_line(one.text)}: this command reads no pipeline, only a profile",
                hint="--set profile.KEY=VALUE, as profile.benchmark.timed_runs=500",
                code="MKD-205",
            )
    return found


def device_overrides(on: str | None, mode: str | None, images: int | None) -> list["Override"]:
    """Return the options of `mobilekd bench` that stand for keys of the profile."""
    from mobilekd.config import Override

    given = (
        (("profile", "device", "place"), on, "--on"),
        (("profile", "benchmark", "mode"), mode, "--mode"),
        (("profile", "device", "images"), images, "--images"),
    )
    return [Override(key, value, f"{word} {value}") for key, value, word in given if value is not None]
