"""What changed between two releases: each kind of change on its own, then through the command."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilekd.artifacts import canonical_json
from mobilekd.cli import run
from mobilekd.quant_table import QuantTable, TensorQuant
from mobilekd.release.answers import Answers
from mobilekd.release.bundle import open_checked
from mobilekd.release.diff import diff
from mobilekd.release.diff_answers import answer_changes, why_not_compared
from mobilekd.release.diff_app import app_changes
from mobilekd.release.diff_page import diff_page
from mobilekd.release.diff_table import table_change
from mobilekd.release.manifest import LATENCY, MANIFEST, MEASUREMENTS_MANIFEST, Manifest, file_entries

from .hostile.site import seal
from .workshop import CLASSES, MODELS, Workshop


@pytest.fixture(scope="module")
def manifest(built: Path) -> Manifest:
    return open_checked(built / "bundle.zip")[1]


@pytest.fixture(scope="module")
def worse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release whose models answer other images wrong, and one of which is slower, bigger and has another suffix."""
    models = tuple(
        replace(one, p50_ms=2 * one.p50_ms, suffix=".bin") if (one.backend, one.precision) == ("mnn", "int8") else one
        for one in MODELS
        if one.p50_ms
    )
    return Workshop(tmp_path_factory.mktemp("worse"), models=models, wrong_from=100).bundle() / "bundle.zip"


def weights(old: Manifest, new: Manifest) -> list[tuple[str, str]]:
    return [(one.weight, one.subject) for one in app_changes(old, new)]


def changed(manifest: Manifest, **parts: object) -> Manifest:
    rule = manifest.preprocessing.model_copy(update=parts)
    return manifest.model_copy(update={"preprocessing": rule})


def with_input(manifest: Manifest, **parts: object) -> Manifest:
    model = manifest.models[0]
    model = model.model_copy(update={"input": replace(model.input, **parts)})
    return manifest.model_copy(update={"models": (model, *manifest.models[1:])})


def test_equal_manifests_change_nothing_for_an_app(manifest: Manifest):
    assert app_changes(manifest, manifest) == ()


def test_two_labels_that_changed_places_are_an_error(manifest: Manifest):
    swapped = manifest.model_copy(update={"labels": (CLASSES[1], CLASSES[0], *CLASSES[2:])})
    (change,) = app_changes(manifest, swapped)
    assert (change.weight, change.old, change.new) == ("error", "'digit 0' is class 0", "class 1")


def test_a_label_that_moved_says_what_an_app_would_show(manifest: Manifest):
    inserted = manifest.model_copy(update={"labels": ("cat", *CLASSES)})
    assert "shows 'cat' for 'digit 0'" in app_changes(manifest, inserted)[0].says


def test_a_label_added_at_the_end_breaks_and_is_no_error(manifest: Manifest):
    longer = manifest.model_copy(update={"labels": (*CLASSES, "cat")})
    assert weights(manifest, longer) == [("breaking", "labels")]


@pytest.mark.parametrize(
    ("part", "value"),
    [("mean", (0.5, 0.5, 0.5)), ("channel_order", "grey"), ("height", 64), ("resize", "nearest"), ("formula", "x")],
)
def test_preprocessing_of_another_kind_breaks(manifest: Manifest, part: str, value: object):
    ((weight, subject),) = weights(manifest, changed(manifest, **{part: value}))
    assert (weight, subject.startswith("preprocessing: ")) == ("breaking", True)


@pytest.mark.parametrize(
    ("part", "value", "subject"),
    [
        ("layout", "NCHW", "onnxruntime-int8 input"),
        ("dtype", "int8", "onnxruntime-int8 input"),
        ("name", "x", "onnxruntime-int8 input name"),
        ("scale", 0.5, "onnxruntime-int8 input quantization"),
    ],
)
def test_an_input_that_is_filled_otherwise_breaks(manifest: Manifest, part: str, value: object, subject: str):
    assert weights(manifest, with_input(manifest, **{part: value})) == [("breaking", subject)]


def test_a_model_that_is_gone_breaks_and_a_new_one_is_a_note(manifest: Manifest):
    fewer = manifest.model_copy(update={"models": manifest.models[1:]})
    assert (weights(manifest, fewer), weights(fewer, manifest)) == (
        [("breaking", "onnxruntime-int8")],
        [("note", "onnxruntime-int8")],
    )


def answers(deployed: list[int], labels: list[int] = [0, 1, 1, 0], classes: tuple[str, ...] = ("a", "b")) -> Answers:  # noqa: B006
    return Answers(classes, np.array(labels, np.uint16), {}, {"m": np.array(deployed, np.uint16)})


def test_flips_are_told_by_what_they_were_and_are():
    (change,) = answer_changes(answers([0, 0, 1, 0]), answers([1, 1, 1, 0]))
    assert [[(one.image, one.label, one.old, one.new) for one in kind] for kind in (change.lost, change.won)] == [
        [(0, "a", "a", "b")],
        [(1, "b", "a", "b")],
    ]


def test_a_class_that_lost_stands_before_one_that_won():
    (change,) = answer_changes(answers([0, 0, 1, 0]), answers([1, 1, 1, 0]))
    assert [(one.name, one.old, one.new) for one in change.classes] == [("a", 1.0, 0.5), ("b", 0.5, 1.0)]


def test_labels_in_another_order_are_no_flip():
    (change,) = answer_changes(answers([0, 1, 1, 0]), answers([1, 0, 0, 1], [1, 0, 0, 1], ("b", "a")))
    assert change.flips == 0


@given(st.lists(st.tuples(*[st.integers(0, 2)] * 3), min_size=1))
def test_flips_add_up_to_the_change_of_top1(rows: list[tuple[int, int, int]]):
    labels, old, new = (list(column) for column in zip(*rows, strict=True))
    classes = ("a", "b", "c")
    (change,) = answer_changes(answers(old, labels, classes), answers(new, labels, classes))
    assert change.new_top1 - change.old_top1 == pytest.approx((len(change.won) - len(change.lost)) / len(rows))


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        (None, answers([0, 1, 1, 0]), "OLD carries no answers"),
        (answers([0, 1, 1, 0]), None, "NEW carries no answers"),
        (answers([0, 1, 1, 0]), answers([0, 1, 1, 0], classes=("a", "c")), "the same classes"),
        (answers([0, 1, 1, 0]), answers([0, 1], [0, 1]), "other images (4 and 2)"),
        (answers([0, 1, 1, 0]), answers([0, 1, 1, 0], [0, 1, 1, 1]), "other images (4 and 4)"),
    ],
)
def test_answers_to_other_questions_are_not_compared(old: Answers | None, new: Answers | None, why: str):
    assert why in why_not_compared(old, new)


def test_a_scale_that_doubled_and_one_that_halved_are_both_a_factor_of_two():
    tensors = [TensorQuant(name, "activation", "int8", (0.5,), (0,), None, -128, 127) for name in "ab"]
    scaled = [replace(tensors[0], scale=(1.0,)), replace(tensors[1], scale=(0.25,))]
    change = table_change(QuantTable(tuple(tensors)), QuantTable(tuple(scaled)))
    assert [(one.name, one.factor) for one in change.scales] == [("a", 2.0), ("b", 2.0)]


def test_a_tensor_with_another_zero_point_is_told_apart_from_a_scale():
    old = TensorQuant("a", "activation", "int8", (0.5,), (0,), None, -128, 127)
    change = table_change(QuantTable((old,)), QuantTable((replace(old, zero_point=(3,)),)))
    assert change.other == ("a: zero point (0,) -> (3,)",)


def test_a_bundle_is_the_same_release_as_itself(built: Path):
    assert diff(built / "bundle.zip", built / "bundle").is_same


def resealed(bundle: Path, name: str, change: Callable[[dict[str, Any]], None]) -> Path:
    """Return a bundle of which a document was changed, every digest made to fit."""
    document = json.loads((bundle / name).read_text())
    change(document)
    (bundle / name).write_text(canonical_json(document))
    listed = json.loads((bundle / MEASUREMENTS_MANIFEST).read_text())
    entries = [entry.model_dump() for entry in file_entries(bundle, [one["path"] for one in listed["files"]])]
    (bundle / MEASUREMENTS_MANIFEST).write_text(canonical_json({**listed, "files": entries}))
    seal(bundle)
    return bundle


def test_other_images_with_the_same_labels_are_not_compared(built: Path, tmp_path: Path):
    def change(manifest: dict[str, Any]) -> None:
        manifest["dataset"]["test_files"]["test_images.npy"] = "a" * 64

    other = resealed(Workshop(tmp_path).bundle() / "bundle", MANIFEST, change)
    found = diff(built / "bundle.zip", other)
    assert (found.answers, found.not_compared) == ((), "they were tested on other images of the same classes")


def test_a_release_that_was_measured_for_long_is_compared(built: Path, tmp_path: Path):
    def change(latency: dict[str, Any]) -> None:
        latency["samples_ms"] = {"mnn-int8": [[0.123456] * 200_000]}

    long = resealed(Workshop(tmp_path).bundle() / "bundle", LATENCY, change)
    assert diff(built / "bundle.zip", long).is_same


def test_a_model_that_is_twice_as_slow_on_the_same_host_is_dearer(built: Path, worse: Path):
    (cost,) = (one for one in diff(built / "bundle.zip", worse).costs if one.deployment == "mnn-int8")
    assert (cost.verdict, cost.new / cost.old) == ("dearer", pytest.approx(2, rel=0.02))


def test_times_of_two_places_are_not_compared(built: Path, tmp_path: Path):
    on_phone = Workshop(tmp_path, place="device").bundle() / "bundle.zip"
    assert {one.verdict for one in diff(built / "bundle.zip", on_phone).costs} == {"not compared"}


def test_equal_instructions_are_no_difference(tmp_path: Path):
    one, other = (Workshop(tmp_path / name, place="emulator").bundle() / "bundle.zip" for name in "ab")
    assert {cost.verdict for cost in diff(one, other).costs if cost.kind} == {"no difference"}


def test_the_page_has_a_picture_of_every_flip(built: Path, worse: Path):
    found = diff(built / "bundle.zip", worse)
    page = diff_page(found, np.zeros((360, 8, 8, 3), np.uint8))
    flips = {(one.lost, one.won, one.other): one.flips for one in found.answers}
    assert page.count("data:image/png;base64,") == sum(flips.values())


def test_models_that_flip_alike_are_shown_once(built: Path, worse: Path):
    page = diff_page(diff(built / "bundle.zip", worse), None, "No pictures.")
    assert "Flipped: quantized, tflite-int8" in page


def test_a_class_named_like_markup_stays_a_name(tmp_path: Path):
    names = ("<script>alert(1)</script>", *CLASSES[1:])
    one, other = (Workshop(tmp_path / str(at), classes=names, wrong_from=at).bundle() / "bundle.zip" for at in (0, 100))
    page = diff_page(diff(one, other), None, "No pictures.")
    assert ("<script>" in page, "&lt;script&gt;alert(1)" in page) == (False, True)


def test_the_command_ends_in_7_when_labels_moved(built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    swapped = Workshop(tmp_path, classes=(CLASSES[1], CLASSES[0], *CLASSES[2:])).bundle() / "bundle.zip"
    code = run(["bundle", "diff", str(built / "bundle.zip"), str(swapped)])
    assert (code, "order of labels" in capsys.readouterr().out) == (7, True)


def test_strict_ends_in_7_for_a_file_of_another_name(built: Path, worse: Path):
    words = ["bundle", "diff", str(built / "bundle.zip"), str(worse)]
    assert (run(words), run([*words, "--strict"])) == (0, 7)


def test_json_holds_every_flip(built: Path, worse: Path, capsys: pytest.CaptureFixture[str]):
    run(["bundle", "diff", str(built / "bundle.zip"), str(worse), "--json"])
    document = json.loads(capsys.readouterr().out)
    lost = {one["name"]: len(one["lost"]) for one in document["answers"]}
    assert (document["schema"], lost["tflite-int8"]) == ("mobilekd.diff/1", 5)


@pytest.mark.parametrize(
    "case",
    [
        ("nowhere.zip nowhere.zip", 2, "nowhere.zip"),
        ("BUILT nowhere.zip", 2, "nowhere.zip"),
        ("BUILT", 2, "NEW"),
        ("BUILT TEXT", 7, "notes.txt"),
        ("BUILT BUILT --html no/such/folder/page.html", 2, "page.html"),
        ("BUILT BUILT --html .", 2, "a folder; a file is needed"),
        ("BUILT BUILT --html BUILT", 2, "would overwrite"),
    ],
)
def test_a_mistake_is_named(built: Path, tmp_path: Path, capfd, case: tuple[str, int, str]):
    words, code, told = case
    (tmp_path / "notes.txt").write_text("no bundle")
    places = {"BUILT": str(built / "bundle.zip"), "TEXT": str(tmp_path / "notes.txt")}
    ended = run(["bundle", "diff", *(places.get(word, word) for word in words.split())])
    assert (ended, told in capfd.readouterr().err) == (code, True)


def test_a_diff_without_a_model_in_both_has_no_empty_table(built: Path, tmp_path: Path, capsys):
    models = {"old": MODELS[:1], "new": MODELS[1:2]}
    old, new = (str(Workshop(tmp_path / name, models=one).bundle() / "bundle.zip") for name, one in models.items())
    assert run(["bundle", "diff", old, new]) == 0
    assert "cost: not compared: no model is in both" in capsys.readouterr().out
