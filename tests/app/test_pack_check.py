import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from mobilekd.release.app import pack_check
from mobilekd.release.app.ai_pack import Variant, variants, write_pack
from mobilekd.release.app.pack_check import check_pack
from mobilekd.release.manifest import Manifest

XML = '<config:device-targeting-config xmlns:config="http://schemas.android.com/apk/config">{}</config:device-targeting-config>'
GROUP = '<config:device-group name="{}">{}</config:device-group>'
BIG = "models/tflite-fp32.tflite"
SELECTOR = '<config:device-selector ram-min-bytes="6000000000"/>'


def two_sizes(manifest: Manifest) -> Manifest:
    """Return a manifest whose second model is a bigger TFLite one with better top-1 than its own."""
    small = next(model for model in manifest.models if model.deployment == "tflite-int8")
    big = small.model_copy(update={"deployment": "tflite-fp32", "file": BIG})
    entry = next(one for one in manifest.files if one.path == small.file)
    files = (*manifest.files, entry.model_copy(update={"path": BIG, "bytes": 2 * entry.bytes}))
    rows = [{"deployment": "tflite-int8", "top1_deployed": 0.98}, {"deployment": "tflite-fp32", "top1_deployed": 0.99}]
    return manifest.model_copy(update={"models": (big, small), "files": files, "parity": tuple(rows)})


@pytest.fixture
def project(bundle: Path, manifest: Manifest, tmp_path: Path) -> Path:
    """A pack whose devices with much memory get another model."""
    two, source, android = two_sizes(manifest), tmp_path / "bundle", tmp_path / "android"
    shutil.copytree(bundle, source)
    (source / BIG).write_bytes(b"a bigger model")
    android.mkdir()
    write_pack(source, android, "numbers", variants(two, two.models, "tflite"))
    return android


def test_a_written_pack_keeps_every_rule(project: Path) -> None:
    assert check_pack(project, "numbers") == ()


def test_default_devices_get_the_smallest_model_and_those_with_memory_the_better_one(project: Path) -> None:
    assets = project / "numbers/src/main/assets"
    assert sorted(path.relative_to(assets).as_posix() for path in assets.rglob("*") if path.is_file()) == [
        "model#group_high_ram/labels.txt",
        "model#group_high_ram/model.tflite",
        "model#group_other/labels.txt",
        "model#group_other/model.tflite",
    ]
    assert (assets / "model#group_high_ram/model.tflite").read_bytes() == b"a bigger model"


def test_one_model_makes_no_groups(manifest: Manifest) -> None:
    assert [one.group for one in variants(manifest, manifest.models, "tflite")] == [""]


def test_a_bigger_model_that_is_no_better_makes_no_group(manifest: Manifest) -> None:
    two = two_sizes(manifest)
    equal = two.model_copy(update={"parity": ({"deployment": "tflite-int8", "top1_deployed": 0.99}, two.parity[1])})
    assert [one.group for one in variants(equal, equal.models, "")] == [""]


def test_a_bigger_model_that_is_fed_otherwise_makes_no_group(manifest: Manifest) -> None:
    two = two_sizes(manifest)
    nchw = two.models[0].model_copy(update={"input": manifest.models[0].input})
    assert [one.model.deployment for one in variants(two, (nchw, two.models[1]), "tflite")] == ["tflite-int8"]


def groups(*inside: str) -> Callable[[Path], object]:
    return lambda project: (project / pack_check.TARGETING).write_text(XML.format("".join(inside)))


def replaced(name: str, old: str, new: str) -> Callable[[Path], object]:
    return lambda project: (project / name).write_text((project / name).read_text().replace(old, new))


def added(name: str) -> Callable[[Path], object]:
    return lambda project: (project / "numbers/src/main/assets" / name).write_bytes(b"")


def moved(name: str, to: str) -> Callable[[Path], object]:
    assets = "numbers/src/main/assets"
    return lambda project: (project / assets / name).rename(project / assets / to)


@pytest.mark.parametrize(
    ("breaks", "sentence"),
    [
        (groups(GROUP.format("high_ram", SELECTOR * 6)), "has 6 selectors, 1 to 5 are allowed"),
        (groups(GROUP.format("high_ram", "")), "has 0 selectors, 1 to 5 are allowed"),
        (groups(GROUP.format("high_ram", SELECTOR), GROUP.format("other", SELECTOR)), "'other' is Play's own"),
        (groups(GROUP.format("high_ram", SELECTOR), GROUP.format("high_ram", SELECTOR)), "is defined twice"),
        (groups(GROUP.format("high-ram", SELECTOR)), "'high-ram' is not a name of a group"),
        (groups(), "that device_targeting_configuration.xml does not define"),
        (groups(GROUP.format("high_ram", SELECTOR), GROUP.format("low", SELECTOR)), "group 'low' does not have"),
        (
            groups(GROUP.format("high_ram", '<config:device-selector ram-min-bytes="8" ram-max-bytes="8"/>')),
            "ram-min-bytes 8 is not below ram-max-bytes 8",
        ),
        (
            groups(GROUP.format("high_ram", '<config:device-selector ram-min-bytes="6GB"/>')),
            "whole numbers of bytes",
        ),
        (groups(GROUP.format("high_ram", "<config:device-selector/>")), "a selector without a property"),
        (groups("<open>"), "mismatched tag"),
        (replaced(pack_check.TARGETING, "apk/config", "apk/other"), "its root is"),
        (replaced("numbers/build.gradle.kts", "numbers", "digits"), "does not name the pack 'numbers'"),
        (replaced("numbers/build.gradle.kts", "install-time", "later"), "deliveryType is none of"),
        (replaced("numbers/build.gradle.kts", "ai-pack", "asset-pack"), "does not apply com.android.ai-pack"),
        (added("model#group_other/libx.so"), "a pack holds models, no code"),
        (moved("model#group_other", "model#group_low"), "there is no default variant"),
    ],
)
def test_a_broken_rule_is_said(project: Path, breaks: Callable[[Path], object], sentence: str) -> None:
    breaks(project)
    assert any(sentence in one for one in check_pack(project, "numbers"))


def test_a_pack_above_the_limit_of_google_play_is_refused(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pack_check, "MAX_PACK_BYTES", 1000)
    assert any("Google Play takes 1000" in one for one in check_pack(project, "numbers"))


def test_a_variant_says_its_group(manifest: Manifest) -> None:
    two = two_sizes(manifest)
    assert variants(two, two.models, "")[0] == Variant("high_ram", two.models[0])
