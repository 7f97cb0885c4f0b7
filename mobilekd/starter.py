"""A first pipeline file for a user's own images."""

import json
import re
from pathlib import Path

from mobilekd.config import shipped_folder
from mobilekd.errors import ConfigError

_TEST_SHARE = 0.2


def write_pipeline(images: Path, out: Path) -> float:
    """Write the shipped imagefolder pipeline, pointed at a folder; return the share of each class held out to test.

    That is 0 where the folder has val/, else data.test_share is set.

    Raises:
        ConfigError: The folder is not laid out in classes, or the file is already there.
    """
    test_share = _test_share(images)
    if out.exists():
        raise ConfigError(f"{out} is already there", hint="choose another name with --out FILE", code="MKD-262")
    text = (shipped_folder("pipelines") / "imagefolder.toml").read_text(encoding="utf-8")
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", images.resolve().name).strip("-._") or "images"
    text = re.sub(r'^name = ".*"$', f"name = {json.dumps(name)}", text, count=1, flags=re.MULTILINE)
    try:
        out.write_text(_with_data(text, images.resolve(), test_share), encoding="utf-8")
    except OSError as cause:
        raise ConfigError(f"{out} can't be written: {cause.strerror}", code="MKD-262") from cause
    return test_share


def _test_share(images: Path) -> float:
    """Return what data.test_share has to be for a layout: train/CLASS and val/CLASS, train/CLASS alone, or CLASS."""
    has_val = (images / "val").is_dir()
    top = images / "train" if has_val or (images / "train").is_dir() else images
    for folder in (top, images / "val") if has_val else (top,):
        if not any(path.is_dir() for path in folder.glob("*")):
            hint = "lay images out as CLASS/*.jpg, or as train/CLASS/*.jpg and val/CLASS/*.jpg, one folder a class"
            raise ConfigError(f"{folder} has no folder of a class", hint=hint, code="MKD-241")
    return 0.0 if has_val else _TEST_SHARE


def _with_data(text: str, images: Path, test_share: float) -> str:
    """Return the pipeline text with data.path, and a test_share above 0, in its table: the path's line replaced."""
    line = f"path = {json.dumps(str(images), ensure_ascii=False)}"
    if test_share:
        line += f"\ntest_share = {test_share:g}  # of each class, held out to test on: there is no val/"
    head, mark, rest = text.partition("[data]\n")
    if not mark:
        return f"{text.rstrip()}\n\n[data]\n{line}\n"
    table, next_mark, others = rest.partition("\n[")
    replaced, count = re.subn(r"^#? ?path = .*$", lambda _: line, table, count=1, flags=re.MULTILINE)
    table = replaced if count else f"{line}\n{table}"
    return f"{head}{mark}{table}{next_mark}{others}"
