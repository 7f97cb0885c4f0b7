"""Does a directory keep Google Play's rules of AI packs? Gradle and bundletool are not run.

Source: developer.android.com/google/play/on-device-ai and /google/play/device-targeting.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

TARGETING = "device_targeting_configuration.xml"
NAMESPACE = "http://schemas.android.com/apk/config"
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
DEFAULT_GROUP = "other"
"""Play's own group of all devices that are in no other."""
MAX_PACK_BYTES = 1_500_000_000
MAX_SELECTORS = 5
_DELIVERIES = ("install-time", "fast-follow", "on-demand")
_CODE = (".so", ".dex", ".jar", ".aar", ".apk", ".class")
_SUFFIX = "#group_"


def check_pack(android: Path, pack: str) -> tuple[str, ...]:
    """Return what is wrong with a pack, a sentence each; empty when nothing is.

    Args:
        android: The project: the pack's module is a directory in it, and the device groups a file.
        pack: Name of the module.
    """
    groups, wrong = _groups(android / TARGETING)
    return (*wrong, *_module(android / pack, pack), *_assets(android / pack / "src/main/assets", groups))


def _module(folder: Path, pack: str) -> Iterator[str]:
    if NAME.fullmatch(pack) is None:
        yield f"{pack!r} is not a name of a pack: a letter, then letters, digits and underscores"
    script = folder / "build.gradle.kts"
    text = script.read_text("utf-8") if script.is_file() else ""
    if 'id("com.android.ai-pack")' not in text:
        yield f"{script.name} does not apply com.android.ai-pack"
    if f'packName.set("{pack}")' not in text:
        yield f"{script.name} does not name the pack {pack!r}, as its folder is called"
    if (found := re.search(r'deliveryType\.set\("([^"]*)"\)', text)) is None or found[1] not in _DELIVERIES:
        yield f"{script.name}: deliveryType is none of {', '.join(_DELIVERIES)}"


def _assets(assets: Path, groups: tuple[str, ...]) -> Iterator[str]:
    files = sorted(file for file in assets.rglob("*") if file.is_file()) if assets.is_dir() else []
    # What Play limits is the compressed size; models hardly get smaller, so this side is the safe one.
    if (total_bytes := sum(file.stat().st_size for file in files)) > MAX_PACK_BYTES:
        yield f"the pack has {total_bytes} bytes, Google Play takes {MAX_PACK_BYTES}"
    for file in files:
        if file.suffix in _CODE:
            yield f"{file.relative_to(assets).as_posix()}: a pack holds models, no code"
    held: dict[str, set[str]] = {DEFAULT_GROUP: set()}
    for file in files:
        name, group = _untargeted(file.relative_to(assets).as_posix())
        held.setdefault(group, set()).add(name)
    if not held[DEFAULT_GROUP]:
        yield "there is no default variant: devices of no group get an empty pack"
    for group in (*groups, *(one for one in held if one not in (*groups, DEFAULT_GROUP))):
        if group not in groups:
            yield f"the assets have a group {group!r} that {TARGETING} does not define"
        elif held.get(group) != held[DEFAULT_GROUP]:
            yield f"group {group!r} does not have the files of the default variant"


def _untargeted(name: str) -> tuple[str, str]:
    """Return an asset's path as an app sees it, and the group that it is for."""
    path, group = [], DEFAULT_GROUP
    for part in name.split("/"):
        plain, _, suffix = part.partition(_SUFFIX)
        path.append(plain)
        group = suffix or group
    return "/".join(path), group


def _groups(file: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the device groups that a file defines, and what is wrong with it; no file defines none."""
    if not file.is_file():
        return (), ()
    try:
        root = ElementTree.fromstring(file.read_text("utf-8"))  # noqa: S314 (written by us, or by the user)
    except ElementTree.ParseError as cause:
        return (), (f"{file.name}: {cause}",)
    if root.tag != f"{{{NAMESPACE}}}device-targeting-config":
        return (), (f"{file.name}: its root is {root.tag}, not device-targeting-config of {NAMESPACE}",)
    groups = root.findall(f"{{{NAMESPACE}}}device-group")
    names = tuple(group.get("name", "") for group in groups)
    wrong = [sentence for group in groups for sentence in _group(group)]
    wrong += [f"group {name!r} is defined twice" for name in sorted(set(names)) if names.count(name) > 1]
    return names, tuple(f"{file.name}: {sentence}" for sentence in wrong)


def _group(group: ElementTree.Element) -> Iterator[str]:
    name, selectors = group.get("name", ""), group.findall(f"{{{NAMESPACE}}}device-selector")
    if NAME.fullmatch(name) is None:
        yield f"{name!r} is not a name of a group: a letter, then letters, digits and underscores"
    if name == DEFAULT_GROUP:
        yield f"group {DEFAULT_GROUP!r} is Play's own and may not be defined"
    if not 1 <= len(selectors) <= MAX_SELECTORS:
        yield f"group {name!r} has {len(selectors)} selectors, 1 to {MAX_SELECTORS} are allowed"
    for selector in selectors:
        lowest, highest = (selector.get(f"ram-{end}-bytes") for end in ("min", "max"))
        if not all(one is None or one.isdecimal() for one in (lowest, highest)):
            yield f"group {name!r}: ram-min-bytes and ram-max-bytes are whole numbers of bytes"
        elif lowest is not None and highest is not None and int(lowest) >= int(highest):
            yield f"group {name!r}: ram-min-bytes {lowest} is not below ram-max-bytes {highest}"
        if not selector.attrib and not len(selector):
            yield f"group {name!r} has a selector without a property"
