"""The templates that lie beside this file, and the rule by which an app fits an image to the input of a model."""

import re
from importlib import resources
from string import Template

from mobilekd.errors import ConfigError
from mobilekd.release.app.literals import comment, numbers
from mobilekd.release.manifest import Preprocessing

# The words of mobilekd/training/sources.py; image folders say first that images are turned upright.
_SQUARE = re.compile(
    r"(turned as its EXIF orientation says; )?"
    r"shorter side to (\d+) px, bilinear with antialias, then the central (\d+) x (\d+) square"
)


def fill(name: str, values: dict[str, object]) -> str:
    """Return a template with its values; each of them must be given."""
    text = (resources.files("mobilekd.release.app") / f"{name}.tmpl").read_text(encoding="utf-8")
    return Template(text).substitute(values)


def fit_of(rule: Preprocessing) -> str:
    """Return which code fits an image: "square" or "none".

    Raises:
        ConfigError: The bundle has another rule than those that code is written for.
    """
    if rule.channel_order != "RGB" or len(rule.mean) != 3 or len(rule.std) != 3:
        raise ConfigError(f"app code is written for RGB images, the bundle's are {rule.channel_order}")
    if rule.resize == "none":
        return "none"
    found = _SQUARE.fullmatch(rule.resize)
    if found is None or {*map(int, found.groups()[1:])} != {rule.width} or rule.width != rule.height:
        raise ConfigError(
            f"app code is not written for this resize rule: {rule.resize!r} to {rule.width} x {rule.height}",
            hint="known are 'none' and the rule of mobilekd's own data sources; write the code by the manifest",
        )
    return "square"


def pixel_values(rule: Preprocessing, suffix: str) -> dict[str, object]:
    """Return what every template says of pixels; `suffix` ends a float32 literal of the language."""
    return {
        "width": rule.width,
        "height": rule.height,
        "mean": numbers(rule.mean, suffix),
        "std": numbers(rule.std, suffix),
        "resize": comment(rule.resize),
    }
