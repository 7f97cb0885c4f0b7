"""A first pipeline file for a user's own images."""

import json
import re
from pathlib import Path

from mobilekd.config import shipped_folder
from mobilekd.errors import ConfigError

_SPLITS = ("train", "val")


def write_pipeline(images: Path, out: Path) -> None:
    """Write the shipped imagefolder pipeline, pointed at a folder.

    Raises:
        ConfigError: The folder is not laid out as train/CLASS and val/CLASS, or the file is already there.
    """
    for split in _SPLITS:
        if not any(path.is_dir() for path in (images / split).glob("*")):
            hint = "lay images out as train/CLASS/*.jpg and val/CLASS/*.jpg"
            raise ConfigError(f"{images / split} has no folder of a class", hint=hint)
    if out.exists():
        raise ConfigError(f"{out} is already there", hint="choose another name with --out FILE")
    text = (shipped_folder("pipelines") / "imagefolder.toml").read_text(encoding="utf-8")
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", images.resolve().name).strip("-._") or "images"
    text = re.sub(r'^name = ".*"$', f"name = {json.dumps(name)}", text, count=1, flags=re.MULTILINE)
    try:
        out.write_text(_with_data_path(text, images.resolve()), encoding="utf-8")
    except OSError as cause:
        raise ConfigError(f"{out} can't be written: {cause.strerror}") from cause


def _with_data_path(text: str, images: Path) -> str:
    """Return the pipeline text with data.path set: its line replaced, or put first in the table."""
    line = f"path = {json.dumps(str(images), ensure_ascii=False)}"
    head, mark, rest = text.partition("[data]\n")
    if not mark:
        return f"{text.rstrip()}\n\n[data]\n{line}\n"
    table, next_mark, others = rest.partition("\n[")
    replaced, count = re.subn(r"^#? ?path = .*$", lambda _: line, table, count=1, flags=re.MULTILINE)
    table = replaced if count else f"{line}\n{table}"
    return f"{head}{mark}{table}{next_mark}{others}"
