"""A first pipeline file for a user's own images: each option with the reason that it has its value."""

import json
import os
import re
import tempfile
from collections.abc import Iterable
from pathlib import Path

from mobilekd.errors import ConfigError
from mobilekd.first_look import FirstLook, Machine
from mobilekd.first_options import Choice, FirstOptions
from mobilekd.units import readable_bytes

_WIDTH = 120
_STAGES = ("data", "teacher", "distill", "quantize", "export", "simplify", "convert", "verify", "benchmark", "bundle")


def write_pipeline(look: FirstLook, machine: Machine, options: FirstOptions, out: Path) -> None:
    """Write the pipeline file, whole or not at all.

    Raises:
        ConfigError: The file is already there, or can't be written.
    """
    check_free(out)
    text = pipeline_text(look, machine, options)
    try:
        handle, beside = tempfile.mkstemp(dir=out.parent, prefix=f".{out.name}.")
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
        Path(beside).chmod(0o644)
        Path(beside).rename(out)
    except OSError as cause:
        raise ConfigError(
            f"{out} can't be written: {cause.strerror}", hint="choose another place with --out FILE", code="MKD-262"
        ) from cause


def check_free(out: Path) -> None:
    """Refuse a file that is there: it is the user's.

    Raises:
        ConfigError: It is there.
    """
    if out.exists():
        raise ConfigError(f"{out} is already there", hint="choose another name with --out FILE", code="MKD-262")


def pipeline_text(look: FirstLook, machine: Machine, options: FirstOptions) -> str:
    """Return the pipeline file, in TOML."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", look.path.resolve().name.removesuffix(".npz")).strip("-._") or "images"
    return "\n".join((*_head(look, machine, options, name), *_data(look, options), *_training(options), ""))


def _head(look: FirstLook, machine: Machine, options: FirstOptions, name: str) -> Iterable[str]:
    least, median, most = look.sides
    images = f"{sum(look.train_counts) + sum(look.test_counts):,} images of {len(look.classes)} classes"
    host = f"{machine.cores} cores, {readable_bytes(machine.memory_bytes)} of memory"
    disk, free = readable_bytes(2 * options.disk_bytes), readable_bytes(machine.free_disk_bytes)
    yield f"# {images}; shorter side {least} to {most} px, median {median}."
    yield f"# This machine: {host}, {machine.gpu or 'no GPU that torch can use'}."
    yield f"# Decoding them takes {disk} of disk ({free} are free), half of which stays in the cache;"
    yield f"# training takes about {readable_bytes(options.memory_bytes)} of memory."
    yield "# Every value is a rule of thumb: change what you know better."
    yield f"name = {json.dumps(name)}"
    yield f"description = {_quoted(f'{len(look.classes)} classes of {look.path.name}')}"
    yield "seed = 0"
    yield f"stages = {json.dumps(_STAGES)}"
    yield ""


def _data(look: FirstLook, options: FirstOptions) -> Iterable[str]:
    yield "[data]"
    yield f"source = {json.dumps(look.source)}"
    yield f"path = {_quoted(str(look.path.resolve()))}"
    if options.test_share.value:
        yield from _option("test_share", options.test_share)
    yield from _option("image_size", options.image_size)
    yield from _option("calibration_images", options.calibration_images)
    if options.skip_bad_images.why:
        yield from _option("skip_bad_images", options.skip_bad_images)
    if set(look.modes) <= {"L", "1", "I;16", "LA"}:
        yield "# All images are grey: each is given to the networks as three equal channels."
    yield 'normalization = "imagenet"  # fits ImageNet weights; without them "dataset" does as well'
    yield 'licence = ""  # of the images, as "CC-BY-4.0": it stands in the bundle'
    yield ""


def _training(options: FirstOptions) -> Iterable[str]:
    networks = options.networks
    yield f"# Networks chosen for {options.networks_why}; others: timm:NAME, or python:package.module:factory."
    yield "# pretrained = true takes ImageNet weights, which are downloaded."
    yield '# A teacher of your own: checkpoint = "FILE" and epochs = 0.'
    yield "[teacher]"
    yield f"network = {json.dumps(networks.teacher)}"
    yield "pretrained = false"
    yield from _option("epochs", options.teacher_epochs)
    yield from _option("batch_size", options.batch_size)
    yield "learning_rate = 1e-3"
    yield from _augmentation(options)
    yield ""
    yield "[distill]"
    yield f"network = {json.dumps(networks.student)}"
    yield "pretrained = false"
    yield 'method = "kd"  # its loss: 0.1 labels + 0.9 teacher, at temperature 4; others: mobilekd list methods'
    yield from _option("epochs", options.distill_epochs)
    yield f"batch_size = {options.batch_size.value}"
    yield "learning_rate = 2e-3"
    yield from _augmentation(options)
    yield "views = 16  # augmented versions of each image; the teacher answers each of them once"
    yield ""
    yield "[quantize]"
    yield "epochs = 3  # int8 with the student's weights: short, at a small learning rate"
    yield f"batch_size = {options.batch_size.value}"
    yield "learning_rate = 1e-4"
    yield from _augmentation(options)


def _augmentation(options: FirstOptions) -> Iterable[str]:
    yield from _option("sampling", options.sampling)
    yield f"shift_pixels = {options.shift_pixels}"
    yield from _option("flip", options.flip)


def _option(key: str, choice: Choice[bool] | Choice[int] | Choice[float] | Choice[str]) -> Iterable[str]:
    """Give a line of an option with its reason behind it, or above it where both don't fit."""
    line = f"{key} = {json.dumps(choice.value)}"
    why = re.sub(r"[^\x20-\x7e\xa0-\uffff]", "?", choice.why)  # a newline in a file's name would end the comment
    if why and len(line) + len(why) + 4 > _WIDTH:
        yield f"# {why[0].upper()}{why[1:]}."
    yield f"{line}  # {why}" if why and len(line) + len(why) + 4 <= _WIDTH else line


def _quoted(text: str) -> str:
    """Return a TOML string; JSON's escapes are TOML's, but for surrogates, which ASCII escapes would need."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
