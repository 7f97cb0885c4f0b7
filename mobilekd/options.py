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
SharedCacheOption = Annotated[
    str,
    typer.Option(
        "--shared-cache", metavar="URL", help="Store of finished stages, for what --cache lacks: docs/store.md."
    ),
]
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
BudgetOption = Annotated[
    list[str] | None, typer.Option("--budget", metavar="KEY=VALUE", help="One budget, as top1_drop=0.01. Repeatable.")
]
AgainstOption = Annotated[
    Path | None, typer.Option("--against", metavar="BUNDLE", help="The last release, for the release_* budgets.")
]
StrictOption = Annotated[bool, typer.Option("--strict", help="A budget that was not measured fails too.")]
JunitOption = Annotated[Path | None, typer.Option("--junit", metavar="FILE", help="Write the budgets as JUnit XML.")]
MarkdownOption = Annotated[
    Path | None, typer.Option("--markdown", metavar="FILE", help="Write the budgets as a Markdown table.")
]
BundleArgument = Annotated[Path, typer.Argument(metavar="BUNDLE", help="A .mobilekd.zip, or a bundle folder.")]

TrustedOption = Annotated[
    list[Path] | None, typer.Option("--key", metavar="PUB", help="Public key that is trusted. Repeatable: any of them.")
]
SignatureOption = Annotated[
    Path | None, typer.Option("--signature", metavar="FILE", help="Signature; BUNDLE.sig.json unless given.")
]
RequireOption = Annotated[bool, typer.Option("--require-signature", help="Refuse to go on without --key.")]
NoRunOption = Annotated[bool, typer.Option("--no-run", help="Leave out the run of every model.")]
KeyOption = Annotated[Path, typer.Option("--key", metavar="KEY", help="Private key, from keygen.")]
PassphraseOption = Annotated[
    Path | None, typer.Option("--passphrase-file", metavar="FILE", help="File whose first line is the passphrase.")
]
NoPassphraseOption = Annotated[bool, typer.Option("--no-passphrase", help="Write the key unencrypted.")]
NewKeyOption = Annotated[Path, typer.Option("--out", metavar="KEY", help="Where the private key goes; KEY.pub beside.")]
SignatureOutOption = Annotated[
    Path | None, typer.Option("--out", metavar="FILE", help="Where the signature goes; BUNDLE.sig.json unless given.")
]
OpenssfOption = Annotated[
    Path | None, typer.Option("--openssf", metavar="FILE", help="Write OpenSSF model-signing's signature there too.")
]
OpenssfKeyOption = Annotated[
    Path | None, typer.Option("--openssf-key", metavar="EC_PEM", help="Private EC key for --openssf.")
]


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
